"""What a picture shows of which files."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

import bench_runs
from drift_engine.bench import pictures
from drift_engine.bench.panels import BarPanel, Bound, CurvePanel, LinePanel
from drift_engine.bench.pictures import Kind, Picture
from drift_engine.bench.results import Generator, Percentiles, Result, Slo
from drift_engine.bench.series import Log, PlotError, Run


def runs(*results: Result) -> list[Run]:
    return [Run(source=f"{index}.json", result=result) for index, result in enumerate(results)]


def logs(count: int = 1, *, late: int = 0, failed: int = 0, slo: Slo = Slo()) -> list[Log]:  # noqa: B008 - frozen
    made = tuple(bench_runs.records(late=late, failed=failed))
    return [
        Log(source=f"{index}.jsonl", records=made, label=f"log {index}", slo=slo) for index in range(count)
    ]


SWEEP = runs(*(bench_runs.result(mode, rate_rps) for mode in ("mux", "fused") for rate_rps in (1, 2)))


def labels(picture: Picture) -> list[list[str]]:
    """Of each panel's series."""
    found = []
    for panel in (panel for row in picture.rows for panel in row):
        match panel:
            case LinePanel(lines=shown):
                found.append([line.label for line in shown])
            case BarPanel(bars=shown):
                found.append([bar.label for bar in shown])
            case CurvePanel(curves=shown):
                found.append([curve.label for curve in shown])
    return found


@pytest.mark.parametrize(
    ("given", "given_logs", "titles"),
    [
        (SWEEP, [], [["Goodput", "Attainment"]]),
        (
            SWEEP[::2],
            [],
            [["Time to first token", "Time between tokens, all gaps", "Time per output token, by request"]],
        ),
        ([], logs(), [["Time to first token", "Time between tokens, all gaps"]]),
        (
            SWEEP,
            logs(4),
            [["Goodput", "Attainment"], ["Time to first token", "Time between tokens, all gaps"]],
        ),
    ],
    ids=["sweep", "runs", "logs", "both"],
)
def test_auto_shows_all_that_the_files_hold(
    given: Sequence[Run], given_logs: Sequence[Log], titles: list[list[str]]
) -> None:
    rows = pictures.picture(given, given_logs).rows
    assert [[panel.title for panel in row] for row in rows] == titles


def test_runs_without_a_promise_are_compared_by_latency() -> None:
    unjudged = runs(*(bench_runs.result("mux", rate_rps, slo=Slo()) for rate_rps in (1, 2)))
    picture = pictures.picture(unjudged)
    assert labels(picture) == [["mux, 1/s", "mux, 2/s"]] * 3
    assert picture.subtitle == ""


def test_the_title_says_what_all_runs_share() -> None:
    picture = pictures.picture(SWEEP)
    assert picture.title == "measured, small, synthetic, 100 in, 4 out"
    assert picture.subtitle == "promise: TTFT ≤ 200 ms and TBT ≤ 50 ms for 90 % of requests"
    assert pictures.picture(SWEEP, title="Mine").title == "Mine"


def test_attainment_marks_its_target_and_the_crossing() -> None:
    falling = runs(*(bench_runs.result("mux", 1 + late, late=late) for late in (0, 2)))
    ((panel,),) = pictures.picture(falling, kind="attainment").rows
    assert isinstance(panel, LinePanel)
    assert panel.targets == (Bound(90.0, "target 90 %"),)
    assert [crossing.rate_rps for crossing in panel.crossings] == [pytest.approx(2)]
    assert [point.y for point in panel.lines[0].points] == pytest.approx([100, 80])


def test_mixed_promises_are_told_and_drawn_apart() -> None:
    strict = msgspec.structs.replace(bench_runs.SLO, tbt_ms=20, attainment_target=0.95)
    mixed = runs(
        *(
            bench_runs.result("mux", rate_rps, slo=slo)
            for slo in (bench_runs.SLO, strict)
            for rate_rps in (1, 2)
        )
    )
    picture = pictures.picture(mixed)
    assert len(labels(picture)[0]) == 2
    assert picture.subtitle == ""
    (warning,) = picture.warnings
    assert warning.startswith("the runs were judged by 2 promises")
    assert "TBT ≤ 20 ms" in warning
    panel = picture.rows[0][1]
    assert isinstance(panel, LinePanel)
    assert [bound.value for bound in panel.targets] == pytest.approx([90, 95])


def test_latency_marks_the_bounds() -> None:
    rising = Slo(ttft_ms=200, ttft_per_token_ms=0.5, tbt_ms=None)
    ((ttft, tbt, tpot),) = pictures.picture(
        runs(bench_runs.result(), bench_runs.result("fused", slo=rising)), kind="latency"
    ).rows
    assert isinstance(ttft, BarPanel)
    assert [bound.label for bound in ttft.bounds] == [
        "bound 200 ms",
        "bound 200 ms + 0.5 ms per uncached token",
    ]
    assert isinstance(tbt, BarPanel)
    assert isinstance(tpot, BarPanel)
    assert tbt.bounds == tpot.bounds == (Bound(50.0, "bound 50 ms"),)
    assert ttft.groups == ("P50", "P90", "P99")


def test_logs_take_labels_and_bounds_from_their_results() -> None:
    picture = pictures.picture(SWEEP[::2], logs(2), kind="cdf")
    assert labels(picture) == [["mux", "fused"]] * 2
    (row,) = picture.rows
    assert [panel.bounds for panel in row if isinstance(panel, CurvePanel)] == [
        (Bound(200.0, "bound 200 ms"),),
        (Bound(50.0, "bound 50 ms"),),
    ]


def test_logs_alone_have_the_bounds_that_are_asked_for() -> None:
    ((ttft, tbt),) = pictures.picture([], logs(2, slo=Slo(tbt_ms=40)), names=["A", "B"]).rows
    assert isinstance(ttft, CurvePanel)
    assert isinstance(tbt, CurvePanel)
    assert (ttft.bounds, tbt.bounds) == ((), (Bound(40.0, "bound 40 ms"),))
    assert [curve.label for curve in ttft.curves] == ["A", "B"]


def test_a_long_tail_gets_a_logarithmic_axis() -> None:
    short, long = logs(late=2), logs()
    times_s = (0.1, 5.0, 5.01)
    tail = (msgspec.structs.replace(long[0].records[0], token_times_s=times_s), *long[0].records)
    for given, log_x in ((short, False), ([msgspec.structs.replace(long[0], records=tail)], True)):
        ((_, tbt),) = pictures.picture([], given).rows
        assert isinstance(tbt, CurvePanel)
        assert tbt.log_x is log_x


def test_names_are_for_lines_or_for_files() -> None:
    assert labels(pictures.picture(SWEEP, names=["A", "B"]))[0] == ["A", "B"]
    assert labels(pictures.picture(SWEEP, names=["A", "B", "B", "B"]))[0] == ["A", "B"]
    assert labels(pictures.picture(SWEEP, kind="latency", names=list("ABCD")))[0] == list("ABCD")


def test_doubtful_runs_are_told() -> None:
    lagging = Generator(send_lag_ms=Percentiles(p99=9.0), reliable=False)
    picture = pictures.picture(
        runs(bench_runs.result(interrupted=True), bench_runs.result("fused", generator=lagging)),
        logs(2, failed=3),
    )
    assert picture.warnings == (
        "0.json: was interrupted",
        "1.json: the load generator lagged; its latencies are not the server's alone",
        "0.jsonl: 3 of 10 requests failed and are not in its curves",
        "1.jsonl: 3 of 10 requests failed and are not in its curves",
    )


@pytest.mark.parametrize(
    ("given", "given_logs", "kind", "names", "message"),
    [
        (SWEEP, [], "cdf", [], "cdf: needs the token-time log of a run: --log LOG.jsonl"),
        ([], logs(), "goodput", [], "goodput: needs result files"),
        (SWEEP, logs(4), "latency", [], "latency: is drawn from results alone"),
        (SWEEP, logs(3), "auto", [], "--log: 3 logs for 4 runs"),
        (SWEEP, [], "auto", ["A", "B", "C"], "--label: 3 names for 4 runs in 2 lines (mux; fused)"),
        (SWEEP, [], "latency", ["A", "B"], "--label: 2 names for 4 runs"),
        ([], logs(), "cdf", ["A", "B"], "--label: 2 names for 1 logs"),
        (SWEEP * 3, [], "latency", [], "latency: 12 runs are too many to compare side by side; at most 8"),
        ([], logs(failed=10), "cdf", [], "0.jsonl: no request was answered"),
        (runs(bench_runs.result(slo=Slo())), [], "attainment", [], "0.json: has no attainment"),
    ],
)
def test_what_can_not_be_drawn_is_one_line(
    given: Sequence[Run], given_logs: Sequence[Log], kind: Kind, names: list[str], message: str
) -> None:
    with pytest.raises(PlotError) as caught:
        pictures.picture(given, given_logs, kind, names)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
