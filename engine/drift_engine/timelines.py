"""What happened when, as files that people look at.

`write` makes a trace for Perfetto or chrome://tracing, or an SVG picture of a few moments, by the file's suffix. What
the bars are is for `launches` (a node's lanes) and `bench.tracks` (a load generator's requests) to say.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from drift_engine.errors import EngineError, OptionsError

SUFFIXES = (".json", ".svg")

_THREADS = 1_000_000
"""Thread numbers of each process begin at a multiple: two traces can be joined, and none has the number 0, which
Perfetto takes for the idle thread."""


class TimelineError(EngineError):
    """A timeline can't be written."""


class Bar(msgspec.Struct, frozen=True, gc=False):
    """Something that lasted. A bar within another one of its row belongs to it."""

    row: int
    start_s: float
    end_s: float
    kind: str
    label: str
    details: Mapping[str, Any]


class Timeline(msgspec.Struct, frozen=True):
    """Bars on named rows, in the time of the clock that they were seen by; inner bars behind outer ones."""

    process: str
    number: int
    """Of the process in a trace, from 1: another one for everything that may be seen beside it."""
    rows: Sequence[str]
    bars: Sequence[Bar]
    colours: Mapping[str, str]
    """By kind, in the order of the legend."""
    picture_end_s: float
    picture_s: float
    """What a picture shows: so long before that end."""


def check(path: Path) -> None:
    """Raises OptionsError for a file that `write` could not write."""
    if path.suffix not in SUFFIXES:
        raise OptionsError(f"timeline: {path} ends in neither {' nor '.join(SUFFIXES)}")
    if not path.absolute().parent.is_dir():
        raise OptionsError(f"timeline: {path.absolute().parent} is no folder")


def write(path: Path, timeline: Timeline) -> None:
    """Raises TimelineError."""
    content = picture(timeline).encode() if path.suffix == ".svg" else trace(timeline)
    try:
        path.write_bytes(content)
    except OSError as error:
        raise TimelineError(f"{path}: can't be written: {error.strerror}") from error


def trace(timeline: Timeline) -> bytes:
    """In the Trace Event Format: one thread per row, a complete event per bar.

    Times are the clock's own, so that traces of one machine line up; viewers show them from the first one on.
    """
    process, first = timeline.number, timeline.number * _THREADS
    events: list[dict[str, Any]] = [
        {"ph": "M", "name": "process_name", "pid": process, "args": {"name": timeline.process}}
    ]
    for index, row in enumerate(timeline.rows):
        thread: dict[str, Any] = {"ph": "M", "pid": process, "tid": first + index}
        events.append(thread | {"name": "thread_name", "args": {"name": row}})
        events.append(thread | {"name": "thread_sort_index", "args": {"sort_index": index}})
    for bar in timeline.bars:
        start_us, end_us = round(bar.start_s * 1e6, 1), round(bar.end_s * 1e6, 1)
        events.append(
            {
                "ph": "X",
                "name": bar.kind,
                "pid": process,
                "tid": first + bar.row,
                "ts": start_us,
                "dur": round(end_us - start_us, 1),
                "args": bar.details,
            }
        )
    return msgspec.json.encode({"traceEvents": events, "displayTimeUnit": "ms"})


_WIDTH, _LEFT, _ROW, _BAR, _TOP = 1200, 110, 44, 30, 34


def picture(timeline: Timeline) -> str:
    """One row for each that has a bar in the picture's time; hovering over a bar tells what it was."""
    end_s = timeline.picture_end_s
    start_s = max(end_s - timeline.picture_s, min((bar.start_s for bar in timeline.bars), default=end_s))
    shown = [bar for bar in timeline.bars if bar.end_s > start_s and bar.start_s < end_s]
    places = {row: place for place, row in enumerate(sorted({bar.row for bar in shown}))}
    scale = (_WIDTH - _LEFT - 10) / max(end_s - start_s, 1e-9)
    height = _TOP + _ROW * len(places) + 24
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
    ]
    for index, (kind, colour) in enumerate(timeline.colours.items()):
        x = _LEFT + 90 * index
        out.append(f'<rect x="{x}" y="8" width="12" height="12" fill="{colour}"/>')
        out.append(f'<text x="{x + 17}" y="18">{kind}</text>')
    for row, place in places.items():
        y = _TOP + _ROW * place
        out.append(f'<text x="8" y="{y + _BAR / 2 + 4:g}">{html.escape(timeline.rows[row])}</text>')
        out.append(
            f'<rect x="{_LEFT}" y="{y}" width="{_WIDTH - _LEFT - 10}" height="{_BAR}" fill="#edf2f7"/>'
        )
    for bar in shown:
        left = _LEFT + max(0.0, bar.start_s - start_s) * scale
        width = max(0.5, (min(bar.end_s, end_s) - max(bar.start_s, start_s)) * scale - 0.5)
        y = _TOP + _ROW * places[bar.row]
        title = html.escape(f"{bar.label}, {(bar.end_s - bar.start_s) * 1e3:.1f} ms")
        out.append(
            f'<rect x="{left:.1f}" y="{y}" width="{width:.1f}" height="{_BAR}" '
            f'fill="{timeline.colours[bar.kind]}"><title>{title}</title></rect>'
        )
    y = _TOP + _ROW * len(places) + 12
    for tenth in range(11):
        share = tenth / 10
        left = _LEFT + share * (_WIDTH - _LEFT - 10)
        anchor = "end" if tenth == 10 else "middle"
        text = f"{share * (end_s - start_s) * 1e3:.0f} ms"
        out.append(f'<text x="{left:.0f}" y="{y}" text-anchor="{anchor}" fill="#4a5568">{text}</text>')
    return "\n".join([*out, "</svg>", ""])
