"""What the load generator saw, as people look at it."""

from __future__ import annotations

import itertools
import json
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bench_runs
import stand_in_api
from drift_cli import main
from drift_engine import launches, timelines
from drift_engine.bench import tracks
from drift_engine.bench.records import RequestRecord
from drift_engine.bench.results import Slo

RECORD = RequestRecord(
    index=7,
    scheduled_s=1.0,
    due_s=1.0,
    sent_s=0.1,
    token_times_s=(0.3, 0.34, 0.44),
    token_counts=(1, 1, 2),
    end_s=0.45,
    status="ok",
    prompt_tokens=500,
    cached_tokens=100,
    output_tokens=4,
)


def slices(content: bytes) -> list[dict[str, Any]]:
    return [event for event in json.loads(content)["traceEvents"] if event["ph"] == "X"]


@given(
    st.lists(st.tuples(st.floats(0, 10), st.floats(0, 5)), max_size=40).map(
        lambda drawn: sorted((start_s, start_s + lasts_s) for start_s, lasts_s in drawn)
    )
)
def test_as_few_rows_as_requests_were_under_way_at_once(intervals: list[tuple[float, float]]) -> None:
    rows = tracks.pack(intervals)
    for row in set(rows):
        own = [interval for interval, taken in zip(intervals, rows, strict=True) if taken == row]
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(own))
    at_once = [
        sum(other_s <= start_s < end_s for other_s, end_s in intervals[: index + 1])
        for index, (start_s, _) in enumerate(intervals)
    ]
    assert len(set(rows)) <= max(at_once, default=0) + any(start_s == end_s for start_s, end_s in intervals)


def test_a_request_holds_its_first_token_and_every_gap_by_the_promise() -> None:
    slo = Slo(ttft_ms=100, ttft_per_token_ms=0.5, tbt_ms=50)  # 400 tokens were not cached
    timeline = tracks.timeline([RECORD], 1000.0, slo)
    seen = [(bar.kind, round(bar.start_s, 3), round(bar.end_s, 3)) for bar in timeline.bars]
    assert seen == [
        ("request", 1001.0, 1001.45),
        ("first token", 1001.1, 1001.3),  # due in time, sent 0.1 s later
        ("token", 1001.3, 1001.34),
        ("late", 1001.34, 1001.44),
    ]
    assert timeline.bars[0].label == "request 7: 500 tokens, 100 cached; 4 answered"
    strict = tracks.timeline([RECORD], 1000.0, Slo(ttft_ms=200))
    assert [bar.kind for bar in strict.bars] == ["request", "late", "token", "token"]
    assert [bar.kind for bar in tracks.timeline([RECORD], 1000.0, Slo()).bars].count("late") == 0


def test_a_failure_begins_where_the_answer_stopped() -> None:
    failed = msgspec.structs.replace(RECORD, status="failed", reason="stream: the core died")
    last = tracks.timeline([failed], 0.0, Slo()).bars[-1]
    assert (last.kind, last.label) == ("failed", "request 7: stream: the core died")
    assert [last.start_s, last.end_s] == pytest.approx([1.44, 1.45])
    silent = msgspec.structs.replace(failed, token_times_s=(), token_counts=(), sent_s=None)
    assert [bar.kind for bar in tracks.timeline([silent], 0.0, Slo()).bars] == ["request", "failed"]


def test_a_very_long_run_keeps_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracks, "KEPT_BARS", 7)
    bars = tracks.timeline(bench_runs.records(rate_rps=1.0), 0.0, Slo()).bars
    assert [bar.details.get("index") for bar in bars if bar.kind == "request"] == [9]
    assert len(bars) == 7


def test_a_picture_shows_the_time_up_to_the_last_first_token() -> None:
    runs = bench_runs.records(rate_rps=0.5)  # ten over 20 s, with a first token after 0.1 s
    svg = ElementTree.fromstring(timelines.picture(tracks.timeline(runs, 50.0, Slo())))
    titles = [title.text or "" for title in svg.iter("{http://www.w3.org/2000/svg}title")]
    requests = [title.partition(":")[0] for title in titles if "answered" in title]
    assert requests == [
        f"request {index}" for index in range(4, 10)
    ]  # from 8.1 s on: request 4 ended at 8.19 s
    assert not any("request 9: token" in title for title in titles)


def test_two_traces_of_one_machine_can_be_laid_side_by_side() -> None:
    """One clock and no thread of the same number: their events only have to be put into one list."""
    span = launches.Span("whole", 1001.2, 0.1, 0, 400, 0, 12)
    node = timelines.trace(launches.timeline([span]))
    bench = timelines.trace(tracks.timeline([RECORD], 1000.0, Slo()))
    (prefill,), (request, first, *_) = slices(node), slices(bench)
    assert first["ts"] < prefill["ts"] < prefill["ts"] + prefill["dur"] <= first["ts"] + first["dur"]
    assert request["ts"] + request["dur"] == pytest.approx(1001.45e6)
    assert not {(e["pid"], e["tid"]) for e in slices(node)} & {(e["pid"], e["tid"]) for e in slices(bench)}


def test_the_command_line_writes_what_it_saw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run.json"
    arguments = ["bench", "--poisson", "500", "--requests", "5", "--output-tokens", "3", "--quiet"]
    before_s = time.monotonic()
    with stand_in_api.in_thread(stand_in_api.StandInApi()) as api:
        assert main.main([*arguments, "--url", api.url, "--timeline", str(out)]) == 0
        assert main.main([*arguments, "--url", api.url, "--timeline", str(tmp_path / "run.png")]) == 1
    assert "run.png ends in neither .json nor .svg" in capsys.readouterr().err
    found = slices(out.read_bytes())
    assert sorted(s["args"]["index"] for s in found if s["name"] == "request") == [0, 1, 2, 3, 4]
    assert before_s * 1e6 < min(s["ts"] for s in found) < time.monotonic() * 1e6
