"""The levers over a modelled fleet in virtual time: split first, then weights, then nodes, and back."""

from __future__ import annotations

import itertools

import lever_scenes
import plant
from closed_loop import ClosedLoop
from drift_operator.driftservice import DriftService
from drift_operator.levers.levers import BEGINNING

LONG_ANSWERS = plant.Demand(prompt_tokens=2000, output_tokens=600)


def service(ttft_ms: int = 1000, tbt_ms: int = 12, most: int = 8) -> DriftService:
    return lever_scenes.service(
        {
            "slo": {"ttft": {"targetMs": ttft_ms}, "tbt": {"targetMs": tbt_ms}},
            "autoscaling": {"minReplicas": 1, "maxReplicas": most, "stabilization": {"down": "60s"}},
        }
    )


def rises_and_falls(low: float, high: float, until_s: float = 800.0) -> ClosedLoop:
    def rate(at_s: float) -> float:
        return high if 200.0 <= at_s < until_s else low

    return ClosedLoop(service(ttft_ms=400, tbt_ms=25), rate)


def test_a_rise_is_answered_by_nodes_and_a_fall_gives_them_back() -> None:
    loop = rises_and_falls(4.0, 60.0)
    loop.run(800)
    assert 3 <= loop.counts[-1] <= 5
    assert loop.missed_share(500) < 0.01
    loop.run(800)
    assert loop.counts[-1] == 1
    assert loop.missed_share(900) < 0.01
    up, down = (
        [one for one in loop.of("replicas") if (int(one.after) > int(one.before)) is rises]
        for rises in (True, False)
    )
    assert {one.reason for one in up} <= {"Pressure", "Forecast", "Burning"}
    assert {one.reason for one in down} == {"Spare"}
    assert max(one.at_s for one in up) < min(one.at_s for one in down)


def test_the_split_is_tried_before_a_node_is_added() -> None:
    """The planner takes decode steps for quicker than they are, so a moderate load breaks the promise of tokens."""
    loop = ClosedLoop(service(), lambda at_s: 1.0 if at_s < 100 else 3.5, LONG_ANSWERS, optimism=1.3)
    loop.run(580)
    levers = [decision.lever for decision in loop.decisions]
    assert levers[0] == "split"
    assert loop.decisions[0].reason == "TbtBurning"
    first = next((one.at_s for one in loop.of("replicas")), loop.now_s)
    assert first - loop.decisions[0].at_s >= 60.0
    assert loop.missed_share(400) < 0.02


def test_a_split_that_misses_both_promises_is_mended() -> None:
    """The planner gives decode too little: nearly all tokens are late, and some first tokens, whatever it does."""
    demand = plant.Demand(prompt_tokens=2000, output_tokens=100)
    loop = ClosedLoop(service(ttft_ms=250, tbt_ms=15, most=1), lambda _: 8.3, demand, optimism=1.3)
    loop.run(600)
    assert {one.reason for one in loop.of("split")} >= {"TbtBurning"}
    assert loop.missed_share(60) < loop.missed_share(0)


def test_a_slow_node_gets_less_and_is_not_answered_with_nodes_without_end() -> None:
    loop = ClosedLoop(service(ttft_ms=400, tbt_ms=25), lambda _: 25.0, replicas=3)
    loop.machines[1].slowness = 4.0
    loop.run(900)
    assert (loop.decisions[0].lever, loop.decisions[0].node) == ("weight", "n1")
    assert {one.node for one in loop.of("weight")} == {"n1"}
    assert loop.counts[-1] <= 4


def test_what_cannot_be_kept_adds_no_node() -> None:
    loop = ClosedLoop(service(ttft_ms=1, tbt_ms=25), lambda _: 20.0)
    loop.run(600)
    assert loop.of("replicas") == []
    assert loop.outcome is not None
    assert loop.outcome.facts["SLOFeasible"].status == "False"
    assert loop.outcome.facts["SLOMet"].status == "False"


def test_beyond_the_most_nodes_it_says_so() -> None:
    loop = ClosedLoop(service(ttft_ms=400, tbt_ms=25, most=2), lambda _: 100.0)
    loop.run(300)
    assert loop.outcome is not None
    assert loop.replicas == 2
    assert loop.outcome.facts["ScalingLimited"].reason == "AtMaximum"


def test_a_steady_load_settles() -> None:
    for seed in range(2):
        loop = ClosedLoop(service(ttft_ms=400, tbt_ms=25), lambda _: 45.0, replicas=3, seed=seed)
        loop.run(600)
        settled = len(loop.decisions)
        loop.run(1500)
        later = loop.decisions[settled:]
        directions = [int(one.after) > int(one.before) for one in later if one.lever == "replicas"]
        assert sum(a != b for a, b in itertools.pairwise(directions)) <= 1
        assert len(later) <= 12
        assert loop.missed_share(600) < 0.01


def test_an_operator_that_starts_again_changes_nothing() -> None:
    loop = ClosedLoop(service(ttft_ms=400, tbt_ms=25), lambda _: 45.0, replicas=3)
    loop.run(600)
    before, told = loop.replicas, {machine.name: machine.point for machine in loop.machines}
    decided = len(loop.decisions)
    loop.state = BEGINNING
    loop.run(50)
    assert loop.replicas == before
    assert loop.decisions[decided:] == []
    assert {machine.name: machine.point for machine in loop.machines} == told
