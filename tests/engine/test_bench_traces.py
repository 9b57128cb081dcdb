"""Reading recorded workloads, and shaping them."""

from __future__ import annotations

import gzip
import itertools
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_engine.bench import shaping, traces
from drift_engine.bench.shaping import Shape
from drift_engine.bench.traces import Arrival, Trace, TraceError

PIECES = Path(__file__).parents[1] / "support" / "traces"
MOONCAKE = PIECES / "mooncake_conversation_piece.jsonl"
AZURE = PIECES / "azure2023_conversation_piece.csv"
SESSIONS = PIECES / "agent_sessions_piece.jsonl.gz"


def test_mooncake_piece() -> None:
    trace = traces.read(MOONCAKE)
    assert (trace.format, len(trace.arrivals), trace.bin_s) == ("mooncake", 32, 3.0)
    first = trace.arrivals[0]
    assert (first.at_s, first.prompt_tokens, first.output_tokens) == (0.0, 6758, 500)
    assert first.block_ids == tuple(range(14))
    assert all(math.ceil(a.prompt_tokens / a.block_tokens) == len(a.block_ids) for a in trace.arrivals)
    assert [a.at_s for a in trace.arrivals] == sorted(a.at_s for a in trace.arrivals)


def test_azure_piece() -> None:
    trace = traces.read(AZURE)
    assert (trace.format, len(trace.arrivals), trace.bin_s) == ("azure", 40, 0.0)
    assert [(a.prompt_tokens, a.output_tokens) for a in trace.arrivals[:2]] == [(374, 44), (396, 109)]
    assert trace.arrivals[1].at_s == pytest.approx(4.314579)
    assert len({a.block_ids for a in trace.arrivals}) == 40, "nothing is shared"


def test_sessions_piece_is_sorted_by_time_within_each_session() -> None:
    trace = traces.read(SESSIONS)
    assert (trace.format, len(trace.arrivals)) == ("agent-sessions", 14)
    turns: dict[str | None, list[Arrival]] = {}
    for arrival in trace.arrivals:
        turns.setdefault(arrival.session, []).append(arrival)
    assert sorted(map(len, turns.values())) == [4, 4, 6]
    for session in turns.values():
        assert [a.at_s for a in session] == sorted(a.at_s for a in session)
        texts = [a.text or "" for a in session]
        assert all(after.startswith(before) for before, after in itertools.pairwise(texts))


def test_gzipped_or_not_is_the_same(tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(MOONCAKE.read_bytes()))
    assert traces.read(packed).arrivals == traces.read(MOONCAKE).arrivals


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "format not recognised"),
        ("hello\n", "format not recognised"),
        (
            '{"timestamp": 0, "input_length": 10, "output_length": 1, "hash_ids": []}\n',
            ":1: hash_ids has 0 ids",
        ),
        ('{"timestamp": 0, "input_length": 0, "output_length": 1, "hash_ids": []}\n', "input_length"),
        (
            '{"timestamp": 0, "input_length": 1, "output_length": 1, "hash_ids": [1]}\n{"timestamp": "x"}\n',
            ":2: .*timestamp",
        ),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,1,1\n", ":2: needs TIMESTAMP"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,1\n", ":2: needs TIMESTAMP"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "holds no requests"),
        ('{"timestamp": 1, "input": "", "output": "", "session_id": "a"}\n', ":1: .*input"),
    ],
)
def test_bad_trace_names_file_line_and_fault(tmp_path: Path, content: str, complaint: str) -> None:
    path = tmp_path / "trace"
    path.write_text(content)
    with pytest.raises(TraceError, match=complaint):
        traces.read(path)


def test_truncated_gzip_and_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(MOONCAKE.read_bytes())[:-40])
    with pytest.raises(TraceError, match="can't be read"):
        traces.read(path)
    with pytest.raises(TraceError, match="can't be read"):
        traces.read(tmp_path / "absent")


@pytest.mark.parametrize(
    ("stamps", "width_s"),
    [
        ([0, 0, 3000, 5999, 9001], 3.0),
        ([0, 3000, 6000, 15000], 3.0),
        ([0, 40, 277, 300], 0.0),
        ([0, 1500, 2900, 4700], 0.0),
        ([0, 3000], 0.0),
        ([], 0.0),
    ],
)
def test_recording_grid(stamps: list[float], width_s: float) -> None:
    assert traces.grid_s(stamps) == width_s


def arrival(at_s: float, index: int = 0) -> Arrival:
    return Arrival(
        index=index, at_s=at_s, prompt_tokens=8, output_tokens=2, block_ids=(index,), block_tokens=8
    )


def test_bursts_stay_or_are_spread() -> None:
    trace = Trace(
        "t", "mooncake", tuple(arrival(at_s, i) for i, at_s in enumerate([0, 0, 0, 3, 6, 6])), bin_s=3.0
    )
    assert [a.at_s for a in shaping.shape(trace, Shape())] == [0, 0, 0, 3, 6, 6]
    assert [a.at_s for a in shaping.shape(trace, Shape(spread=True))] == [0, 1, 2, 3, 6, 7.5]
    assert [a.at_s for a in shaping.shape(trace, Shape(spread=True, rate_scale=2))] == [
        0,
        0.5,
        1,
        1.5,
        3,
        3.75,
    ]


def test_duration_counts_run_time_and_requests_count_requests() -> None:
    trace = Trace("t", "azure", tuple(arrival(float(i), i) for i in range(10)))
    assert len(shaping.shape(trace, Shape(duration_s=4))) == 4
    assert len(shaping.shape(trace, Shape(duration_s=4, rate_scale=2))) == 8
    assert len(shaping.shape(trace, Shape(duration_s=4, requests=3))) == 3


@given(scale=st.floats(0.01, 4.0))
def test_length_scale_keeps_the_blocks(scale: float) -> None:
    for before in traces.read(MOONCAKE).arrivals:
        after = shaping.scale_lengths(before, scale)
        assert after.block_ids == before.block_ids
        assert math.ceil(after.prompt_tokens / after.block_tokens) == len(after.block_ids)
        assert after.block_tokens == max(1, round(512 * scale))
        assert after.output_tokens >= 1


def test_length_scale_of_texts_keeps_growing_prefixes() -> None:
    shaped = shaping.shape(traces.read(SESSIONS), Shape(length_scale=0.25))
    for session in {a.session for a in shaped}:
        texts = [a.text or "" for a in shaped if a.session == session]
        assert all(after.startswith(before) for before, after in itertools.pairwise(texts))
    with pytest.raises(ValueError, match="length_scale"):
        shaping.shape(traces.read(SESSIONS), Shape(length_scale=1.5))


@pytest.mark.parametrize(
    "wrong",
    [{"rate_scale": 0}, {"length_scale": -1}, {"duration_s": 0}, {"requests": 0}, {"rate_scale": math.nan}],
)
def test_shape_names_the_field(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Shape(**wrong)  # type: ignore[arg-type]


@given(requests=st.integers(2, 200), rate=st.floats(0.1, 100), seed=st.integers(0, 9))
def test_poisson_offers_the_asked_rate(requests: int, rate: float, seed: int) -> None:
    made = shaping.poisson(rate_rps=rate, requests=requests, prompt_tokens=7, output_tokens=3, seed=seed)
    assert len(made) == requests
    assert made[0].at_s == 0
    assert all(before.at_s <= after.at_s for before, after in itertools.pairwise(made))
    assert made[-1].at_s <= requests / rate
    again = shaping.poisson(rate_rps=rate, requests=requests, prompt_tokens=7, output_tokens=3, seed=seed)
    assert made == again


def test_mooncake_lines_out_of_order_are_sorted(tmp_path: Path) -> None:
    lines = [
        {"timestamp": at, "input_length": 5, "output_length": 0, "hash_ids": [at]} for at in (2000, 500, 1000)
    ]
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    read = traces.read(path).arrivals
    assert [(a.index, a.at_s, a.output_tokens) for a in read] == [(0, 0, 1), (1, 0.5, 1), (2, 1.5, 1)]
