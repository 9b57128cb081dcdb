"""What the lanes did, as people look at it."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import msgspec
import pytest

from drift_engine import launches, timelines
from drift_engine.errors import OptionsError
from drift_engine.launches import Span

SPANS = [
    Span("prefill-1", 10.00, 0.06, 0, 512, 0, 6),
    Span("decode-1", 10.01, 0.02, 8, 0, 0, 12),
    Span("whole", 10.08, 0.03, 8, 64, 0, 12),
]


def test_a_trace_has_a_thread_for_each_lane_and_an_event_for_each_span() -> None:
    events = msgspec.json.decode(timelines.trace(launches.timeline(SPANS)))["traceEvents"]
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert list(names.values()) == ["whole", "decode-1", "prefill-1"]
    found = [(names[e["tid"]], e["name"], e["ts"], e["dur"]) for e in events if e["ph"] == "X"]
    assert found == [
        ("prefill-1", "prefill", 10_000_000.0, 60_000.0),  # by the device's clock
        ("decode-1", "decode", 10_010_000.0, 20_000.0),
        ("whole", "fused", 10_080_000.0, 30_000.0),
    ]


def test_a_picture_shows_the_last_moments_to_scale() -> None:
    timeline = msgspec.structs.replace(launches.timeline(SPANS), picture_s=0.08)  # from 10.03 s on
    svg = ElementTree.fromstring(timelines.picture(timeline))
    bars = {
        title.text: float(bar.get("width", ""))
        for bar in svg.iter("{http://www.w3.org/2000/svg}rect")
        for title in bar
    }
    assert list(bars) == [
        "prefill: 512 tokens, layers 0 to 5, 60.0 ms",
        "fused: 8 rows, 64 tokens, layers 0 to 11, 30.0 ms",
    ]
    cut, whole = bars.values()
    assert cut == pytest.approx(whole, rel=0.01)  # 30 ms of the first are in the picture


@pytest.mark.parametrize("spans", [[], SPANS[:1]])
@pytest.mark.parametrize("name", ["a.json", "a.svg"])
def test_few_spans_make_a_file_too(tmp_path: Path, spans: list[Span], name: str) -> None:
    timelines.write(tmp_path / name, launches.timeline(spans))
    assert (tmp_path / name).stat().st_size > 0


def test_files_that_could_not_be_written_are_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match=r"a\.png ends in neither \.json nor \.svg"):
        timelines.check(tmp_path / "a.png")
    with pytest.raises(OptionsError, match="is no folder"):
        timelines.check(tmp_path / "missing" / "a.svg")


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.svg").mkdir()
    with pytest.raises(timelines.TimelineError, match=r"a\.svg: can't be written: Is a directory"):
        timelines.write(tmp_path / "a.svg", launches.timeline(SPANS))
