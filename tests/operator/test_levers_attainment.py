"""Routers' totals become increments: routers come, go, start again and fall silent, and every request counts once."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lever_scenes
from drift_operator.driftservice import Slo
from drift_operator.levers import figures
from drift_operator.levers.attainment import BUCKETS, Judged, Ledger, Track, added, quantile_s
from drift_operator.levers.observations import Router
from drift_operator.status import SloStatus
from drift_router.counters import TTFT_EDGES_S, Histogram

SLO = Slo.model_validate({"window": "60s"})


def ledger(*looks: tuple[float, list[Router]], slo: Slo = SLO) -> Ledger:
    made = Ledger.empty(slo, looks[0][0])
    for now_s, routers in looks:
        made = made.observe(routers, now_s)
    return made


def router(kept: int, missed: int = 0, name: str = "r", uptime_s: float = 1000.0) -> Router:
    return lever_scenes.router(name, prompts=(kept, missed), gaps=(kept, missed), uptime_s=uptime_s)


def test_what_was_counted_before_the_first_look_is_not_counted() -> None:
    assert ledger((0.0, [router(100, 5)])).window.all.requests == 0


def test_increments_of_all_routers_add_up() -> None:
    found = ledger((0.0, [router(10), router(5, name="q")]), (1.0, [router(17, 2), router(6, name="q")]))
    assert found.window.all.ttft == Judged(8, 2)
    assert found.window.all.requests == 10
    assert found.window.all.lengths[2048.0].ttft == Judged(8, 2)


def test_a_router_that_began_since_the_last_look_is_counted_whole() -> None:
    old = [router(10)]
    assert ledger((0.0, old), (5.0, [*old, router(7, name="q", uptime_s=3.0)])).window.all.requests == 7
    assert ledger((0.0, old), (5.0, [*old, router(7, name="q", uptime_s=60.0)])).window.all.requests == 0


@pytest.mark.parametrize(
    "again",
    [router(3, 1, uptime_s=2.0), router(3, 1), router(10, 1, uptime_s=2.0)],
    ids=["both", "counts", "uptime"],
)
def test_a_router_that_started_again_is_counted_from_zero(again: Router) -> None:
    found = ledger((0.0, [router(10, 1)]), (1.0, [again]))
    assert again.totals is not None
    assert found.window.all.requests == again.totals.requests


def test_another_edge_is_another_promise_counted_from_zero() -> None:
    edged = lever_scenes.router(prompts=(12, 0), tbt=Histogram.over((0.1, 0.25), 0.033))
    assert ledger((0.0, [router(10)]), (1.0, [edged])).window.all.requests == 12


def test_a_router_that_fell_silent_is_caught_up_with_but_is_no_demand_of_now() -> None:
    silent = Router("r", problem="no answer within 1 s")
    looks = [(0.0, [router(10)]), *((float(s), [silent]) for s in range(1, 30)), (30.0, [router(500, 10)])]
    found = ledger(*looks)
    assert found.window.all.requests == 500
    assert found.demand.all.requests == 0
    assert ledger((0.0, [router(10)]), (5.0, [silent]), (10.0, [router(60)])).demand.all.requests == 50


def test_routers_that_are_gone_are_forgotten() -> None:
    found = ledger(*((float(s), [router(1, name=f"r{s}", uptime_s=0.5)]) for s in range(50)))
    assert len(found.last) == 1


def test_another_promise_begins_anew() -> None:
    before = ledger((0.0, [router(10)]), (1.0, [router(20, 10)]))
    assert before.promised(SLO) is before
    after = before.promised(Slo.model_validate({"ttft": {"targetMs": 100}}))
    assert after.window.all.requests == after.fast.all.requests == after.slow.all.requests == 0
    assert after.demand.all.requests == 20
    assert after.observe([router(25, 10)], 2.0).window.all.requests == 5


def test_memory_is_bounded() -> None:
    found = ledger(*((s / 2, [router(s)]) for s in range(3000)))
    for track in (found.window, found.fast, found.slow, found.demand):
        assert len(track.buckets) <= BUCKETS + 1


def test_windows_hold_what_they_say() -> None:
    found = ledger(*((float(s), [router(s)]) for s in range(1000)))
    assert found.fast.all.requests == 60
    assert 590 <= found.slow.all.requests <= 600
    assert found.demand.all.requests == 30
    assert found.fast.since(980.0).requests == 20
    assert found.fast.since(-math.inf).requests == 60


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.integers(0, 50), min_size=2, max_size=2), min_size=2, max_size=40),
    st.lists(st.sampled_from(["grows", "silent", "restarts"]), min_size=40, max_size=40),
)
def test_every_request_counts_once(grown: list[list[int]], fates: list[str]) -> None:
    """Of two routers; the second one is silent now and then, or starts again and had nothing to lose."""
    totals, uptime_s, expected = [0, 0], [100.0, 100.0], 0
    made = Ledger.empty(SLO, 0.0).observe([router(0), router(0, name="q")], 0.0)
    silent_growth = 0
    for second, (more, fate) in enumerate(zip(grown, fates, strict=False), start=1):
        uptime_s = [uptime_s[0] + 1, uptime_s[1] + 1]
        totals[0] += more[0]
        expected += more[0]
        if fate == "restarts":
            totals[1], uptime_s[1], silent_growth = 0, 0.5 / (1 + second), 0
        totals[1] += more[1]
        silent_growth += more[1]
        heard = Router("q", problem="no answer")
        if fate != "silent":
            expected, silent_growth = expected + silent_growth, 0
            heard = router(totals[1], name="q", uptime_s=uptime_s[1])
        made = made.observe([router(totals[0], uptime_s=uptime_s[0]), heard], second / 2)
    assert made.window.all.requests == expected


@pytest.mark.parametrize(
    ("judged", "burns", "calm"),
    [
        (Judged(), False, True),
        (Judged(1000, 0), False, True),
        (Judged(995, 5), False, True),
        (Judged(990, 10), False, False),
        (Judged(985, 15), False, False),
        (Judged(980, 20), True, False),
        (Judged(0, 2), False, False),
        (Judged(0, 3), True, False),
    ],
)
def test_burning_is_more_than_chance(judged: Judged, burns: bool, calm: bool) -> None:
    assert (judged.burns(0.99), judged.calm(0.99)) == (burns, calm)


def test_a_burn_rate_of_one_uses_the_allowance_up() -> None:
    assert Judged(99, 1).burn(0.99) == pytest.approx(1.0)
    assert Judged(0, 1).burn(0.99) == pytest.approx(100.0)
    assert Judged().burn(0.99) is None


@given(st.lists(st.floats(0.0, 150.0), min_size=1, max_size=200), st.floats(0.0, 1.0))
def test_quantiles_are_those_of_the_histogram(values: list[float], share: float) -> None:
    histogram = Histogram.over(TTFT_EDGES_S)
    for value in values:
        histogram.observe(value)
    counts = {
        edge: count
        for edge, count in zip((*histogram.edges, math.inf), histogram.counts, strict=True)
        if count
    }
    assert quantile_s(counts, share, TTFT_EDGES_S) == pytest.approx(histogram.quantile(share))


def test_sums_of_nothing_are_nothing() -> None:
    assert added(()).requests == 0
    assert Track(60.0).all == Track(60.0).since(0.0)


# figures ----------------------------------------------------------------------------------------------------


def shown(kept: int, missed: int) -> SloStatus:
    return figures.figures(ledger((0.0, [router(0)]), (1.0, [router(kept, missed)])), SLO, None)


def test_figures_are_of_the_window() -> None:
    found = shown(985, 15).ttft
    assert found is not None
    assert (found.attainment, found.burn_rate, found.requests) == (0.985, 1.5, 1000)
    assert found.p50_ms is not None
    assert found.p99_ms is not None
    assert 50 <= found.p50_ms <= 100
    assert 1000 <= found.p99_ms <= 2000


def test_attainment_is_never_rounded_up_to_a_promise() -> None:
    found = shown(98996, 1004).ttft
    assert found is not None
    assert found.attainment == 0.989


def test_without_requests_there_is_no_figure() -> None:
    assert shown(0, 0) == SloStatus()


def test_figures_stay_while_traffic_is_steady() -> None:
    made = Ledger.empty(SLO, 0.0).observe([router(0)], 0.0)
    status, changes = None, 0
    for second in range(1, 400):
        wobble = 3 if second % 7 < 3 else -3
        made = made.observe([router(50 * second + wobble, second // 4)], float(second))
        now = figures.figures(made, SLO, status)
        changes += second > 70 and now != status
        status = now
    assert changes <= 2


def test_figures_move_when_the_promise_breaks() -> None:
    good = shown(991, 9)
    bad = figures.figures(ledger((0.0, [router(0)]), (1.0, [router(989, 11)])), SLO, good)
    assert good.ttft is not None
    assert bad.ttft is not None
    assert (good.ttft.attainment, bad.ttft.attainment) == (0.991, 0.989)
