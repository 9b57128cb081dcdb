"""From hand-made logs to numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_engine.bench import comparing, counters, metrics, records, results
from drift_engine.bench.records import Header, LogError, LogWriter, RequestRecord
from drift_engine.bench.results import Result, ResultError, Slo, Workload

SLO = Slo(ttft_ms=200, tbt_ms=50)


def record(*token_times_s: float, index: int = 0, due_s: float = 0.0, **fields: Any) -> RequestRecord:
    return RequestRecord(
        **{
            "index": index,
            "scheduled_s": due_s,
            "due_s": due_s,
            "token_times_s": token_times_s,
            "token_counts": (1,) * len(token_times_s),
            "end_s": token_times_s[-1] if token_times_s else 1.0,
            "status": "ok",
            "prompt_tokens": 100,
            "cached_tokens": 25,
            "output_tokens": len(token_times_s),
            "exact_counts": True,
            **fields,
        }
    )


def summarize(*made: RequestRecord, slo: Slo = SLO) -> metrics.Summary:
    return metrics.summarize(made, slo)


def test_one_good_request() -> None:
    told = summarize(record(0.1, 0.13, 0.17, 0.2))
    assert told["attainment"] == told["ttft_attainment"] == told["tbt_attainment"] == 1.0
    assert told["attained"] is True
    assert told["ttft_ms"].p50 == pytest.approx(100)
    assert told["tbt_ms"].max == told["tbt_ms"].worst_gap_p99 == pytest.approx(40)
    assert told["tpot_ms"].p50 == pytest.approx(100 / 3)
    assert told["e2e_ms"].p99 == pytest.approx(200)
    assert (told["prompt_tokens"], told["cached_share"], told["output_tokens"]) == (100, 0.25, 4)
    assert told["duration_s"] == pytest.approx(0.2)
    assert told["goodput_rps"] == pytest.approx(5)
    assert told["rate_rps"] is None, "one request has no rate"


def test_both_bounds_are_anded_and_failures_stay_in_the_denominator() -> None:
    told = summarize(
        record(0.1, 0.14),
        record(0.3, 0.34),  # late first token
        record(0.1, 0.2),  # late second token
        record(0.1, 0.14, status="failed", reason="timeout after 300 s"),
    )
    assert told["attainment"] == 0.25
    assert told["ttft_attainment"] == told["tbt_attainment"] == 0.5
    assert (told["requests"], told["failed"], told["failures"]) == (4, 1, {"timeout after 300 s": 1})
    assert told["attained"] is False
    assert told["output_tokens"] == 6, "a failed answer's tokens are not output"


def test_worst_gap_and_p99_gap_and_mean_gap_part_ways() -> None:
    times = [0.1 + 0.01 * i for i in range(101)]
    one_stall = record(*times[:50], *[time + 0.2 for time in times[50:]])  # 1 of 100 gaps
    two_stalls = record(*times[:30], *[t + 0.2 for t in times[30:60]], *[t + 0.4 for t in times[60:]])
    told = summarize(one_stall, two_stalls)
    assert told["by_worst_gap"] is not None
    assert told["by_mean_gap"] is not None
    assert told["attainment"] == 0.5, "one late gap in a hundred is within the P99"
    assert told["by_worst_gap"].attainment == 0.0
    assert told["by_mean_gap"].attainment == 1.0


def test_one_token_answers_are_judged_on_ttft_alone() -> None:
    told = summarize(record(0.1), record(0.3))
    assert (told["one_token_answers"], told["attainment"], told["tbt_attainment"]) == (2, 0.5, 1.0)
    assert told["tbt_ms"].p99 is None
    assert told["tpot_ms"].p99 is None


def test_an_answer_without_tokens_is_not_good() -> None:
    assert summarize(record(output_tokens=0))["attainment"] == 0.0


def test_forced_answers_must_have_their_length() -> None:
    short = record(0.1, 0.12, asked_output_tokens=3, forced_length=True)
    free = record(0.1, 0.12, asked_output_tokens=3)
    told = summarize(short, free)
    assert (told["short_outputs"], told["attainment"], told["failed"]) == (1, 0.5, 0)


def test_a_chunk_of_several_tokens_is_one_gap() -> None:
    told = summarize(record(0.1, 0.2, token_counts=(1, 4), output_tokens=5))
    assert told["tbt_ms"].p50 == pytest.approx(100)
    assert told["tpot_ms"].p50 == pytest.approx(25)
    assert told["by_mean_gap"] is not None
    assert told["by_mean_gap"].attainment == 1.0
    assert told["attainment"] == 0.0


def test_without_usage_the_counted_tokens_are_the_output() -> None:
    told = summarize(
        record(0.1, 0.2, output_tokens=None, exact_counts=False, prompt_tokens=None, cached_tokens=None)
    )
    assert (told["output_tokens"], told["exact_token_counts"], told["cached_share"]) == (2, False, None)


def test_the_ttft_bound_grows_with_the_uncached_prompt() -> None:
    slow = record(0.27, 0.3)  # 75 uncached tokens
    assert summarize(slow)["attainment"] == 0.0
    assert summarize(slow, slo=Slo(ttft_ms=200, ttft_per_token_ms=1.0, tbt_ms=50))["attainment"] == 1.0


def test_without_bounds_there_is_no_verdict_and_one_bound_is_enough() -> None:
    told = summarize(record(0.1, 0.9), slo=Slo())
    assert all(told[field] is None for field in ("attainment", "goodput_rps", "attained", "by_worst_gap"))
    assert summarize(record(0.1, 0.9), slo=Slo(ttft_ms=200))["attainment"] == 1.0
    assert summarize(record(9.0, 9.01), slo=Slo(tbt_ms=50))["attainment"] == 1.0


def test_an_empty_log_divides_nothing_by_nothing() -> None:
    told = summarize()
    assert (told["requests"], told["attainment"], told["rate_rps"], told["completed_rps"]) == (
        0,
        None,
        None,
        0.0,
    )


def test_duration_is_from_the_first_arrival_to_the_last_end() -> None:
    told = summarize(
        record(0.5, due_s=2.0), record(0.1, due_s=7.0), record(status="failed", due_s=8.0, end_s=3.0)
    )
    assert told["duration_s"] == pytest.approx(9.0)


def test_the_offered_rate_is_requests_over_their_window() -> None:
    told = summarize(*[record(0.1, due_s=float(due_s)) for due_s in range(5)])
    assert (told["window_s"], told["rate_rps"]) == (5.0, 1.0)


def test_many_reasons_are_cut_to_the_commonest() -> None:
    failed = [record(status="failed", reason=f"reason {i}") for i in range(30)]
    reasons = summarize(
        *failed, record(status="failed", reason="usual"), record(status="failed", reason="usual")
    )
    assert len(reasons["failures"]) == metrics.REASONS_SHOWN + 1
    assert reasons["failures"]["usual"] == 2
    assert sum(reasons["failures"].values()) == 32


@given(
    values=st.lists(st.floats(0, 1e6), min_size=1, max_size=50), rank=st.sampled_from([0, 50, 90, 99, 100])
)
def test_percentiles_are_those_of_numpy(values: list[float], rank: int) -> None:
    assert metrics.percentile(sorted(values), rank) == pytest.approx(float(np.percentile(values, rank)))


@given(gaps=st.lists(st.floats(0.0, 0.1), min_size=1, max_size=250))
def test_p99_gap_means_99_percent_of_the_gaps(gaps: list[float]) -> None:
    times = [0.1]
    for gap in gaps:
        times.append(times[-1] + gap)
    made = record(*times)
    within = sum(gap <= 50 for gap in metrics.gaps_ms(made))
    assert metrics.p99_gap_met(made, 50) == (within >= 0.99 * len(gaps))


def test_generator_share() -> None:
    steady = metrics.generator_share([record(0.1, lag_s=0.001)] * 200, [0.002] * 100)
    assert steady.reliable
    assert steady.send_lag_ms.p99 == pytest.approx(1.0)
    assert not metrics.generator_share([record(0.1, lag_s=0.02)], []).reliable
    assert not metrics.generator_share([record(0.1)], [0.02]).reliable


def test_log_round_trip_and_its_faults(tmp_path: Path) -> None:
    path = tmp_path / "tokens.jsonl"
    made = (record(0.1, 0.2), record(status="failed", reason="http 500: x", index=1))
    writer = LogWriter(path)
    for one in made:
        writer.append(one)
    writer.close()
    assert records.read(path) == made
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:40]]))
    with pytest.raises(LogError, match=r"tokens\.jsonl:2: "):
        records.read(path)
    path.write_text('{"schema": "other/1"}\n')
    with pytest.raises(LogError, match="not a log of schema"):
        records.read(path)
    with pytest.raises(LogError, match="can't be read"):
        records.read(tmp_path / "absent")
    with pytest.raises(LogError, match="can't be written"):
        LogWriter(tmp_path / "no" / "folder")


def result(*made: RequestRecord, **fields: Any) -> Result:
    return Result(
        **{
            "kind": "bench",
            "mode": "fused",
            "date": "2026-01-01T00:00:00+00:00",
            "command": "drift bench",
            "drift_version": "0",
            "model": "m",
            "workload": Workload(trace="t", format="azure"),
            **summarize(*made),
            **fields,
        }
    )


def test_result_file_has_the_fields_of_the_schema(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    results.write(result(record(0.1, 0.13)), path)
    assert results.read(path) == result(record(0.1, 0.13))
    data = msgspec.json.decode(path.read_bytes())
    promised = """schema mode requests failed duration_s rate_rps slo attainment goodput_rps ttft_ms tbt_ms tpot_ms
        prompt_tokens cached_tokens output_tokens realtime_factor"""
    assert set(promised.split()) <= set(data)
    assert {"ttft_ms", "tbt_ms", "attainment_target"} <= set(data["slo"])
    assert {"p50", "p90", "p99"} <= set(data["ttft_ms"])
    assert {"p50", "p99", "worst_gap_p99"} <= set(data["tbt_ms"])
    path.write_bytes(path.read_bytes().replace(b"drift.result/1", b"drift.result/9"))
    with pytest.raises(ResultError, match=r"drift\.result/9"):
        results.read(path)
    path.write_text("{}")
    with pytest.raises(ResultError, match="is not a result"):
        results.read(path)


def test_every_field_of_log_and_result_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "bench.md").read_text()
    structs = (
        Header,
        RequestRecord,
        Result,
        Slo,
        Workload,
        results.Percentiles,
        results.TbtPercentiles,
        results.Judgement,
        results.Generator,
        results.ServerCounts,
        results.Count,
    )
    missing = {
        field
        for struct in structs
        for field in struct.__struct_fields__
        if f"`{field}`" not in page and f"`{field} " not in page
    }
    assert not missing
    assert records.LOG_SCHEMA in page
    assert results.RESULT_SCHEMA in page


@pytest.mark.parametrize(
    "wrong", [{"ttft_ms": 0.0}, {"tbt_ms": -1.0}, {"ttft_per_token_ms": -1.0}, {"attainment_target": 1.5}]
)
def test_slo_names_the_field(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Slo(**wrong)


def test_comparison() -> None:
    a = result(record(0.1, 0.13))
    b = result(record(0.2, 0.26), slo=Slo(ttft_ms=200, tbt_ms=80), interrupted=True)
    found = comparing.compare(a, b)
    rows = {row.name: row for row in found.rows}
    assert rows["ttft_ms.p50"].ratio == pytest.approx(2.0)
    assert rows["by_worst_gap.attainment"].ratio == pytest.approx(0.0)
    assert rows["failed"].ratio is None, "nothing to divide by"
    assert any(line.startswith("slo: ") for line in found.differences)
    assert "B was interrupted" in found.differences
    assert comparing.compare(a, a).differences == ()
    assert all(row.ratio in (None, 1.0) for row in comparing.compare(a, a).rows)


def test_counters_are_read_and_compared() -> None:
    text = (
        "# HELP x y\n"
        'vllm:request_success_total{finished_reason="stop"} 2.0\n'
        'vllm:request_success_total{finished_reason="length"} 1.0\n'
        'vllm:request_success_total{finished_reason="abort"} 5.0\n'
        "vllm:prompt_tokens_total 3e2 1700000000000\n"
        'drift_node_info{node="a",mode="fused"} 1\n'
        "nonsense line\n"
    )
    assert counters.parse(text) == {
        "vllm:request_success_total": 3.0,
        "vllm:prompt_tokens_total": 300.0,
        "drift_node_info": 1.0,
    }
    assert counters.label(text, "mode") == "fused"
    assert counters.label(text, "absent") is None
    made = [record(0.1, 0.2)] * 2 + [record(status="failed")]
    before = {"vllm:request_success_total": 1.0, "vllm:prompt_tokens_total": 100.0}
    agreeing = counters.against_log(before, counters.parse(text), made)
    assert agreeing is not None
    assert agreeing.agree
    assert agreeing.generation_tokens.server is None
    differing = counters.against_log({}, counters.parse(text), made)
    assert differing is not None
    assert not differing.agree
    assert counters.against_log({}, {"up": 1.0}, made) is None
