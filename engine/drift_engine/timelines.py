"""What the lanes did when, as data and as files that people look at.

`write` makes a trace for Perfetto or chrome://tracing, or an SVG picture of the last moments, by the file's suffix.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from drift_engine.errors import OptionsError

SUFFIXES = (".json", ".svg")

KEPT_SPANS = 50_000
"""The last ones, where a timeline was asked for: some minutes of a busy node; 9 MB."""

PICTURE_S = 2.0
"""A picture shows this much before the last span's end: a few dozen decode steps, each wide enough to be seen."""


class Span(msgspec.Struct, frozen=True, gc=False):
    """One launch on one lane: a pass, or the layers [first_layer, end_layer) of one."""

    lane: str
    start_s: float
    seconds: float
    decode_rows: int
    new_tokens: int
    first_layer: int
    end_layer: int

    @property
    def end_s(self) -> float:
        return self.start_s + self.seconds

    @property
    def kind(self) -> str:
        if self.decode_rows and self.new_tokens:
            return "fused"
        return "decode" if self.decode_rows else "prefill"

    @property
    def label(self) -> str:
        parts = [f"{self.decode_rows} rows"] if self.decode_rows else []
        parts += [f"{self.new_tokens} tokens"] if self.new_tokens else []
        return f"{self.kind}: {', '.join(parts)}, layers {self.first_layer} to {self.end_layer - 1}"


def check(path: Path) -> None:
    """Raises OptionsError for a file that `write` could not write."""
    if path.suffix not in SUFFIXES:
        raise OptionsError(f"timeline: {path} ends in neither {' nor '.join(SUFFIXES)}")
    if not path.absolute().parent.is_dir():
        raise OptionsError(f"timeline: {path.absolute().parent} is no folder")


def write(path: Path, spans: Sequence[Span]) -> None:
    """Raises OSError."""
    path.write_bytes(picture(spans).encode() if path.suffix == ".svg" else trace(spans))


def trace(spans: Sequence[Span]) -> bytes:
    """In the Trace Event Format: one thread per lane, a complete event per span, times from the first one on."""
    lanes = _lanes(spans)
    start_s = min((span.start_s for span in spans), default=0.0)
    events: list[dict[str, Any]] = [
        {"ph": "M", "name": "thread_name", "pid": 1, "tid": index, "args": {"name": lane}}
        for index, lane in enumerate(lanes)
    ]
    events += [
        {
            "ph": "X",
            "name": span.kind,
            "pid": 1,
            "tid": lanes.index(span.lane),
            "ts": round((span.start_s - start_s) * 1e6, 1),
            "dur": round(span.seconds * 1e6, 1),
            "args": {
                "decode_rows": span.decode_rows,
                "new_tokens": span.new_tokens,
                "layers": [span.first_layer, span.end_layer],
            },
        }
        for span in spans
    ]
    return msgspec.json.encode({"traceEvents": events, "displayTimeUnit": "ms"})


_COLOURS = {"decode": "#2b6cb0", "prefill": "#dd6b20", "fused": "#6b46c1"}
_WIDTH, _LEFT, _ROW, _BAR, _TOP = 1200, 110, 44, 30, 34


def picture(spans: Sequence[Span], seconds: float = PICTURE_S) -> str:
    """One row per lane that did something in the last `seconds`; hovering over a bar tells what it was."""
    end_s = max((span.end_s for span in spans), default=0.0)
    start_s = max(end_s - seconds, min((span.start_s for span in spans), default=0.0))
    shown = [span for span in spans if span.end_s > start_s]
    lanes = _lanes(shown)
    scale = (_WIDTH - _LEFT - 10) / max(end_s - start_s, 1e-9)
    height = _TOP + _ROW * len(lanes) + 24
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
    ]
    for index, (kind, colour) in enumerate(_COLOURS.items()):
        x = _LEFT + 90 * index
        out.append(f'<rect x="{x}" y="8" width="12" height="12" fill="{colour}"/>')
        out.append(f'<text x="{x + 17}" y="18">{kind}</text>')
    for index, lane in enumerate(lanes):
        y = _TOP + _ROW * index
        out.append(f'<text x="8" y="{y + _BAR / 2 + 4:g}">{html.escape(lane)}</text>')
        out.append(
            f'<rect x="{_LEFT}" y="{y}" width="{_WIDTH - _LEFT - 10}" height="{_BAR}" fill="#edf2f7"/>'
        )
    for span in shown:
        left = _LEFT + max(0.0, span.start_s - start_s) * scale
        width = max(0.5, (span.end_s - max(span.start_s, start_s)) * scale - 0.5)
        y = _TOP + _ROW * lanes.index(span.lane)
        title = html.escape(f"{span.label}, {span.seconds * 1e3:.1f} ms")
        out.append(
            f'<rect x="{left:.1f}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{_COLOURS[span.kind]}">'
            f"<title>{title}</title></rect>"
        )
    y = _TOP + _ROW * len(lanes) + 12
    for tenth in range(11):
        share = tenth / 10
        left = _LEFT + share * (_WIDTH - _LEFT - 10)
        anchor = "end" if tenth == 10 else "middle"
        text = f"{share * (end_s - start_s) * 1e3:.0f} ms"
        out.append(f'<text x="{left:.0f}" y="{y}" text-anchor="{anchor}" fill="#4a5568">{text}</text>')
    return "\n".join([*out, "</svg>", ""])


def _lanes(spans: Sequence[Span]) -> list[str]:
    """The whole device first, then decode parts, then prefill parts."""
    order = {"whole": 0, "decode": 1, "prefill": 2}
    return sorted(
        {span.lane for span in spans}, key=lambda lane: (order.get(lane.partition("-")[0], 3), lane)
    )
