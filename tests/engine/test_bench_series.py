"""From results and logs to series."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bench_runs
from drift_engine.bench import metrics, series
from drift_engine.bench.results import Result, Slo, Workload
from drift_engine.bench.series import Line, Log, PlotError, Run


def runs(*results: Result) -> list[Run]:
    return [Run(source=f"folder/{index}.json", result=result) for index, result in enumerate(results)]


def goodput(*results: Result) -> list[Line]:
    return series.lines(runs(*results), lambda result: result.goodput_rps, "goodput")


def line(*path: tuple[float, float]) -> Line:
    return Line(label="", points=(), path=path)


def test_runs_of_one_mode_at_several_rates_are_one_line() -> None:
    mux, fused = goodput(
        bench_runs.result("mux", 4, late=5),
        bench_runs.result("fused", 2),
        bench_runs.result("mux", 2),
        bench_runs.result("mux", 1),
    )
    assert (mux.label, fused.label) == ("mux", "fused")
    assert [point.x for point in mux.points] == pytest.approx([1, 2, 4])
    assert [point.y for point in mux.points] == pytest.approx([1, 2, 2])
    assert [point.attained for point in mux.points] == [True, True, False]
    assert list(mux.path) == [(point.x, point.y) for point in mux.points]


def test_a_line_goes_through_the_mean_of_repeated_runs() -> None:
    (mux,) = goodput(
        *(bench_runs.result("mux", 2, late=late) for late in (0, 5)), bench_runs.result("mux", 1)
    )
    assert len(mux.points) == 3
    assert list(mux.path) == [pytest.approx((1, 1)), pytest.approx((2, 1.5))]


@pytest.mark.parametrize(
    ("other", "labels"),
    [
        (
            bench_runs.result(slo=Slo(ttft_ms=200, tbt_ms=20)),
            ["mux, TBT ≤ 50 ms, for 90 % of requests", "mux, TBT ≤ 20 ms, for 99 % of requests"],
        ),
        (bench_runs.result(kind="simulate"), ["mux, measured", "mux, simulated"]),
        (bench_runs.result(model="large"), ["mux, small", "mux, large"]),
        (bench_runs.result(mode="fused", model="large"), ["mux, small", "fused, large"]),
        (
            bench_runs.result(workload=Workload(trace="t.jsonl", format="mooncake", length_scale=0.5)),
            ["mux, synthetic, 100 in, 4 out", "mux, t.jsonl, 0.5 x lengths"],
        ),
    ],
    ids=["promise", "kind", "model", "model-and-mode", "work"],
)
def test_what_does_not_compare_is_another_line_and_its_label_says_why(
    other: Result, labels: list[str]
) -> None:
    assert [made.label for made in goodput(bench_runs.result(), other)] == labels


def test_seeds_and_rate_scales_make_no_line_of_their_own() -> None:
    load = Workload(trace="t.jsonl", format="mooncake")
    made = goodput(
        bench_runs.result(rate_rps=1, workload=load),
        bench_runs.result(rate_rps=2, workload=msgspec.structs.replace(load, rate_scale=2, seed=1)),
    )
    assert [len(found.points) for found in made] == [2]


def test_names_of_the_user_make_the_lines() -> None:
    named = [
        Run(source="", result=bench_runs.result(mode, 1 + index), label=label)
        for index, (mode, label) in enumerate([("mux", "before"), ("mux", "after"), ("fused", "after")])
    ]
    assert [(label, len(group)) for label, group in series.grouped(named)] == [("before", 1), ("after", 2)]
    assert series.labels(named) == ["before", "after, 2/s", "after, 3/s"]


def test_runs_are_told_apart_by_rate_and_then_by_file() -> None:
    assert series.labels(runs(bench_runs.result("mux"), bench_runs.result("fused"))) == ["mux", "fused"]
    same = [bench_runs.result("mux", rate_rps) for rate_rps in (1, 2, 2)]
    assert series.labels(runs(*same)) == ["mux, 1/s", "mux, 2/s, 1.json", "mux, 2/s, 2.json"]


def test_runs_without_a_rate_or_a_promise_have_no_line() -> None:
    with pytest.raises(PlotError, match=r"folder/0\.json: a run of 10 requests has no offered rate"):
        goodput(msgspec.structs.replace(bench_runs.result(), rate_rps=None))
    with pytest.raises(PlotError, match=r"folder/0\.json: has no goodput"):
        goodput(bench_runs.result(slo=Slo()))


@pytest.mark.parametrize(
    ("path", "rate_rps", "told"),
    [
        ([(1, 100), (2, 95), (3, 85), (4, 20)], 2.5, "90 % up to 2.5/s"),
        ([(1, 100), (2, 90), (3, 80)], 2, "90 % up to 2/s"),
        ([(1, 95), (2, 85), (3, 95), (4, 85)], 1.5, "90 % up to 1.5/s"),
        ([(1, 100), (2, 90)], None, "90 % throughout"),
        ([(1, 80), (2, 20)], None, "below 90 %"),
        ([(1, 80)], None, "below 90 %"),
    ],
)
def test_where_a_line_falls_below_its_target(
    path: list[tuple[float, float]], rate_rps: float | None, told: str
) -> None:
    found = series.crossing(line(*path), 90)
    assert (found.rate_rps, found.told) == (rate_rps if rate_rps is None else pytest.approx(rate_rps), told)


def test_bars_keep_what_was_not_measured_apart_from_zero() -> None:
    nothing = bench_runs.result("fused", tpot_ms=metrics.percentiles([]))
    made = series.bars(
        runs(bench_runs.result(), nothing), lambda result: (result.tpot_ms.p50, result.tpot_ms.p99)
    )
    assert [bar.label for bar in made] == ["mux", "fused"]
    assert made[0].values == pytest.approx((30, 30))
    assert made[1].values == (None, None)


def test_curves_are_of_answered_requests() -> None:
    log = Log(source="log", records=tuple(bench_runs.records(late=2, failed=5)), label="mux")
    (ttft,), (tbt,) = series.curves([log], series.ttfts_ms), series.curves([log], metrics.gaps_ms)
    assert list(ttft.points)[2] == pytest.approx((100, 0.6))
    assert list(ttft.points)[4] == pytest.approx((300, 1.0))
    assert len(tbt.points) == 15


@given(st.integers(1, 30_000))
def test_thinned_curves_keep_both_ends_and_the_tail(count: int) -> None:
    log = Log(source="", records=(bench_runs.records()[0],), label="")
    (curve,) = series.curves([log], lambda _: range(count))
    values = [value for value, _ in curve.points]
    assert values == sorted(set(values))
    assert values[0] == 0
    assert curve.points[-1] == pytest.approx((count - 1, 1))
    assert all(share == pytest.approx((value + 1) / count) for value, share in curve.points)
    assert len(values) <= 4 * series.CURVE_POINTS
    assert count < 1000 or sum(share > 0.99 for _, share in curve.points) >= min(count // 100, 100)
