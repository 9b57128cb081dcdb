"""All levers over one observation: clocks, pauses, a new operator, and whatever the network may say."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lever_scenes
import plant
from drift_engine import wire
from drift_operator.driftservice import DriftService
from drift_operator.levers import levers
from drift_operator.levers.levers import BEGINNING, Outcome
from drift_operator.levers.observations import Node, Observation, Replicas, Router, sane
from drift_operator.levers.setpoints import SetPoint
from drift_operator.status import SloStatus


class Operator:
    """One service under the levers; nodes take what they are told."""

    def __init__(self, service: DriftService | None = None, nodes: int = 2) -> None:
        self.service = service or lever_scenes.scaled(1, 8)
        self.state = BEGINNING
        self.now_s = 1000.0
        self.nodes = list(lever_scenes.nodes(nodes))
        self.routers: list[Router] = [lever_scenes.router()]
        self.outcomes: list[Outcome] = []

    def step(self, seconds: float = 1.0) -> Outcome:
        self.now_s += seconds
        count = len(self.nodes)
        observation = Observation(tuple(self.nodes), tuple(self.routers), Replicas(count, count))
        self.state, outcome = levers.step(self.state, self.service, observation, self.now_s)
        for point in outcome.set_points:
            for index, node in enumerate(self.nodes):
                if node.name == point.node and node.report is not None:
                    taken = {
                        "epoch": point.epoch,
                        "generation": point.generation,
                        "bounds": point.bounds,
                        "weight": point.weight,
                        "applied": True,
                    }
                    report = msgspec.structs.replace(node.report, **taken)
                    self.nodes[index] = dataclasses.replace(node, report=report)
        self.outcomes.append(outcome)
        return outcome

    def run(self, seconds: int, per_s: int = 0, missed: int = 0, **changes: Any) -> Outcome:
        """With so many requests a second, of which so many miss both targets."""
        totals = self.routers[0].totals
        assert totals is not None
        kept, late, answers = totals.ttft_kept, totals.ttft_missed, totals.output_tokens
        for second in range(1, seconds + 1):
            judged = (kept + (per_s - missed) * second, late + missed * second)
            found = {"prompts": judged, "gaps": judged, "output_tokens": answers + 100 * per_s * second}
            uptime_s = totals.uptime_s + second
            self.routers[0] = lever_scenes.router(**{**found, "uptime_s": uptime_s, **changes})
            self.step()
        return self.outcomes[-1]

    def change(self, **changes: Any) -> None:
        """Of all nodes' reports."""
        self.nodes = [
            dataclasses.replace(node, report=msgspec.structs.replace(node.report, **changes))
            for node in self.nodes
            if node.report is not None
        ]


def statuses(outcome: Outcome) -> dict[str, str]:
    return {name: fact.status for name, fact in outcome.facts.items()}


def test_a_steady_service_is_told_nothing_new() -> None:
    operator = Operator()
    operator.run(120, per_s=20)
    before = operator.outcomes[-1]
    epoch = operator.state.sent.epoch
    for _ in range(5):
        after = operator.run(60, per_s=20)
        assert (after.slo, after.facts, after.replicas) == (before.slo, before.facts, before.replicas)
    assert operator.state.sent.epoch == epoch == 1
    assert not [one for outcome in operator.outcomes for one in outcome.decisions]


def test_an_idle_service_that_is_good_says_so() -> None:
    found = Operator(lever_scenes.scaled(2, 8)).run(60)
    assert statuses(found) == {
        "MetricsAvailable": "True",
        "SLOFeasible": "True",
        "SLOMet": "Unknown",
        "SplitConverged": "True",
        "ScalingActive": "True",
        "ScalingLimited": "False",
    }
    assert (found.pressure, found.replicas, found.slo) == (0.0, 2, SloStatus())


def test_load_that_rises_is_answered_with_nodes() -> None:
    operator = Operator(nodes=1)
    operator.run(60, per_s=10)
    assert operator.outcomes[-1].replicas == 1
    assert (operator.run(60, per_s=40).replicas or 0) > 1
    (decision,) = [one for outcome in operator.outcomes for one in outcome.decisions]
    assert (decision.lever, decision.reason) == ("replicas", "Pressure")


def test_a_new_operator_moves_nothing_by_being_new() -> None:
    """It takes over in the middle of a load that needs what there is. In a minute it has seen enough to relax."""
    operator = Operator(lever_scenes.scaled(1, 8, stabilization={"up": "0s", "down": "5m"}), nodes=3)
    operator.change(epoch=17, bounds=(16, 64), weight=1.0, applied=True, generation=1, in_flight=5)
    for _ in range(60):
        outcome = operator.run(1, per_s=30)
        assert outcome.replicas == 3
        assert outcome.decisions == ()
        assert {(point.bounds, point.weight) for point in outcome.set_points} <= {((16, 64), 1.0)}
    assert {point.epoch for point in outcome.sent.values()} == {17}
    assert operator.run(200, per_s=30).replicas == 3


def test_paused_freezes_all_levers_and_keeps_what_nodes_were_told() -> None:
    operator = Operator()
    operator.run(30, per_s=20)
    operator.service = lever_scenes.service({**_scaling(), "paused": True}, generation=1)
    told: list[SetPoint] = []
    for _ in range(100):
        outcome = operator.run(1, per_s=200, missed=100)
        told += outcome.set_points
        assert outcome.decisions == ()
        assert outcome.replicas is None
    assert {point.bounds for point in told} == {None}
    assert len(told) >= 2 * 4  # they do not run out
    assert outcome.facts["ScalingActive"].reason == "Paused"
    assert outcome.slo.ttft is not None
    assert outcome.slo.ttft.attainment == pytest.approx(0.5, abs=0.05)


def _scaling() -> dict[str, Any]:
    return {"autoscaling": {"minReplicas": 1, "maxReplicas": 8}}


def test_a_promise_that_breaks_is_told() -> None:
    found = Operator().run(100, per_s=20, missed=2)
    assert found.facts["SLOMet"].status == "False"
    assert found.facts["SLOMet"].message.startswith("within their target in the last 60s: TTFT 90 % of 99 %")
    assert found.burn_rates["ttft"]["1m"] == pytest.approx(10.0, rel=0.1)
    assert set(found.burn_rates["tbt"]) == {"1m", "10m"}


def test_an_infeasible_promise_adds_no_node() -> None:
    service = lever_scenes.service({**_scaling(), "slo": {"ttft": {"targetMs": 1}}})
    operator = Operator(service)
    found = operator.run(200, per_s=50, missed=50, gaps=(0, 0))
    assert found.facts["SLOFeasible"].status == "False"
    assert "a prompt of 1 token takes" in found.facts["SLOFeasible"].message
    assert "the promise is 1 ms" in found.facts["SLOFeasible"].message
    assert found.replicas == 2
    assert not [one for outcome in operator.outcomes for one in outcome.decisions]


def test_feasibility_is_told_in_the_same_words_while_it_is_the_same() -> None:
    service = lever_scenes.service({**_scaling(), "slo": {"ttft": {"targetMs": 20}}})
    operator = Operator(service)
    operator.run(20, per_s=5)
    said = operator.outcomes[-1].facts["SLOFeasible"]
    assert "a prompt of 1000 tokens takes 24 ms alone on an empty node; the promise is 20 ms" in said.message
    for factor in range(40):
        slower = [value * (1 + factor / 400) for value in plant.whole().prefill_s]
        operator.change(whole=msgspec.structs.replace(plant.whole(), prefill_s=tuple(slower)))
        assert operator.run(5, per_s=5).facts["SLOFeasible"] == said
    operator.service = lever_scenes.service({**_scaling(), "slo": {"ttft": {"targetMs": 10}}}, generation=2)
    assert "the promise is 10 ms" in operator.run(10, per_s=5).facts["SLOFeasible"].message


@pytest.mark.parametrize("fault", ["silent", "absurd", "no router"])
def test_without_metrics_the_levers_hold(fault: str) -> None:
    operator = Operator()
    operator.run(60, per_s=20)
    before = operator.outcomes[-1]
    if fault == "silent":
        operator.nodes = [
            Node(node.name, ready=True, problem="no answer within 1 s") for node in operator.nodes
        ]
    elif fault == "absurd":
        operator.change(tbt_p99_ms=math.nan, queued_tokens=-3)
    else:
        operator.routers = [Router("r", problem="no answer within 1 s")]
    for _ in range(300):
        outcome = operator.step()
    assert outcome.facts["MetricsAvailable"].status == "False"
    assert outcome.replicas == before.replicas
    assert outcome.pressure is None
    assert not [one for outcome in operator.outcomes for one in outcome.decisions]
    kept = {name: (point.bounds, point.weight) for name, point in outcome.sent.items()}
    assert kept == {name: (point.bounds, point.weight) for name, point in before.sent.items()}


def test_one_silent_node_does_not_stop_the_others() -> None:
    operator = Operator(nodes=3)
    operator.nodes[0] = Node("n0", ready=True, problem="no answer within 1 s")
    found = operator.run(120, per_s=200)
    assert found.facts["MetricsAvailable"].message.startswith("node n0: no answer within 1 s")
    assert (found.replicas or 0) > 3


def test_what_cannot_be_split_is_said() -> None:
    operator = Operator()
    operator.change(mode=wire.Mode.FUSED)
    fact = operator.run(10).facts["SplitConverged"]
    assert (fact.status, fact.reason) == ("True", "ModeDoesNotSplit")


def test_without_autoscaling_the_number_is_the_specs() -> None:
    operator = Operator(lever_scenes.service({"replicas": 2}))
    found = operator.run(100, per_s=500)
    assert found.replicas is None
    assert found.pressure is not None
    assert found.facts["ScalingActive"].reason == "Fixed"


def test_another_promise_is_judged_anew() -> None:
    operator = Operator()
    operator.run(100, per_s=20, missed=10)
    operator.service = lever_scenes.service({**_scaling(), "slo": {"ttft": {"targetMs": 4000}}}, generation=2)
    found = operator.run(30, per_s=20)
    assert found.facts["SLOMet"].status == "True"
    assert {point.generation for point in found.sent.values()} == {2}


numbers = st.sampled_from([math.nan, math.inf, -1.0, 0.0, 0.3, 1.0, 5.0, 1e4, 1e300])
counts = st.sampled_from([-5, 0, 1, 7, 10_000, 1 << 40, 1 << 62])
node_changes = st.fixed_dictionaries(
    {},
    optional={
        "ready": st.booleans(),
        "leaving": st.booleans(),
        "age_s": numbers,
        "epoch": counts,
        "bounds": st.sampled_from([None, (8, 16), (3, 3), (500, 600), (16, 8)]),
        "kv_usage": numbers,
        "weight": numbers,
        "queued_tokens": counts,
        "in_flight": counts,
        "running": counts,
        "tbt_p99_ms": numbers,
        "tbt_p50_ms": numbers,
        "prefill_tokens_per_s": numbers,
        "max_running": counts,
        "kv_pages_total": counts,
        "mode": st.sampled_from(wire.Mode),
        "costs": st.just(()),
        "whole": st.none(),
        "legal_splits": st.sampled_from([(), (wire.Split(1, 1),), (wire.Split(4, 4), wire.Split(12, 8))]),
    },
)
router_changes = st.fixed_dictionaries(
    {},
    optional={
        "prompts": st.tuples(counts, counts),
        "gaps": st.tuples(counts, counts),
        "output_tokens": counts,
        "uptime_s": numbers,
        "queue_depth": counts,
        "age_s": numbers,
        "length_tokens": st.sampled_from([1, 1000, 10**6]),
    },
)
services = st.sampled_from(
    [
        lever_scenes.scaled(1, 8),
        lever_scenes.scaled(2, 3, predictor="Kalman"),
        lever_scenes.scaled(1, 8, mode="HPA"),
        lever_scenes.scaled(1, 8, advisory=True),
        lever_scenes.service({"replicas": 3, "slo": {"ttft": {"targetMs": 1}}}),
        lever_scenes.service({**_scaling(), "paused": True}),
        lever_scenes.service({**_scaling(), "multiplexing": {"decodeSMs": {"min": 16, "max": 40}}}),
    ]
)
scenes = st.tuples(
    st.floats(0.0, 120.0),
    services,
    st.dictionaries(st.sampled_from("abc"), node_changes),
    st.dictionaries(st.sampled_from("rq"), router_changes),
    st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 3), st.integers(0, 3)),
)


@settings(max_examples=120, deadline=None)
@given(st.lists(scenes, min_size=1, max_size=12))
def test_whatever_is_said_bounds_hold(taken: list[Any]) -> None:
    state, now_s = BEGINNING, 0.0
    for seconds, service, nodes, routers, found in taken:
        now_s += seconds
        observation = Observation(
            tuple(lever_scenes.node(name, **changes) for name, changes in nodes.items()),
            tuple(lever_scenes.router(name, **changes) for name, changes in routers.items()),
            Replicas(*found),
        )
        state, outcome = levers.step(state, service, observation, now_s)
        scaling = service.spec.autoscaling
        ours = scaling is not None and scaling.mode == "Operator" and not service.spec.paused
        if scaling is not None and ours and not scaling.advisory:
            assert outcome.replicas is not None
            assert scaling.min_replicas <= outcome.replicas <= scaling.max_replicas
        else:
            assert outcome.replicas is None
        assert outcome.pressure is None or 0.0 <= outcome.pressure < 1000.0
        assert set(outcome.victims) == set(nodes)
        believed = {node.name: node.report for node in sane(observation)[0].nodes}
        for point in outcome.set_points:
            assert point.epoch >= 1
            assert 0.0 <= point.weight <= 1.0
            report = believed[point.node]
            if point.bounds is not None and report is not None:
                low, high = point.bounds
                assert low <= high
                assert {low, high} <= {one.decode_sms for one in report.legal_splits}
        for fact in outcome.facts.values():
            assert fact.reason.isalnum()
            assert fact.message
        if service.spec.paused:
            assert outcome.decisions == ()
    assert isinstance(outcome.slo.model_dump(mode="json", by_alias=True), dict)


@settings(max_examples=30, deadline=None)
@given(st.permutations([1.0, 2.0, 0.5, 7.0, 16.0, 31.0]), st.integers(1, 60))
def test_the_order_of_nodes_does_not_matter(gaps: list[float], per_s: int) -> None:
    one, other = Operator(nodes=3), Operator(nodes=3)
    for operator in (one, other):
        operator.nodes[1] = lever_scenes.node("n1", queued_tokens=9000, in_flight=4)
    other.nodes.reverse()
    for gap in gaps:
        for operator in (one, other):
            operator.now_s += gap
            operator.run(1, per_s=per_s)
        a, b = one.outcomes[-1], other.outcomes[-1]
        assert (a.replicas, a.victims, a.sent, a.facts) == (b.replicas, b.victims, b.sent, b.facts)


def test_a_node_without_a_router_is_heard_and_not_judged() -> None:
    observation = Observation(lever_scenes.nodes(1), (), Replicas(1, 1), routed=False)
    _, outcome = levers.step(BEGINNING, lever_scenes.service(), observation, 1000.0)
    facts = {kind: (fact.status, fact.reason) for kind, fact in outcome.facts.items()}
    assert facts["MetricsAvailable"] == ("True", "Reporting")
    assert facts["SLOMet"] == ("Unknown", "NotJudged")
    assert [point.node for point in outcome.set_points] == ["n0"]
