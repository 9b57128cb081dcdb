"""Weights follow headroom, stay where nodes are alike, and never take a serving node out; who leaves first."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lever_scenes
from drift_engine import wire
from drift_operator.driftservice import Slo
from drift_operator.levers import leaving, weights
from drift_operator.levers.decisions import Decision
from drift_operator.levers.observations import Node
from drift_operator.levers.weights import DWELL_S, FLOOR, INTERVAL_S, RAMP_S, REST_S, WeightsState
from weighed_nodes import WeighedNodes

SLO = Slo.model_validate({})


class Lever:
    def __init__(self, *nodes: Node) -> None:
        self.nodes = nodes
        self.state = WeightsState()
        self.now_s = 1000.0
        self.decisions: list[Decision] = []
        self.after(0)

    def after(self, seconds: float, *nodes: Node) -> dict[str, float]:
        """In steps of a second."""
        self.nodes = nodes or self.nodes
        for _ in range(max(1, round(seconds))):
            self.now_s += min(1.0, seconds)
            self.state = weights.adopt(self.state, self.nodes, self.now_s)
            self.state, made = weights.move(self.state, SLO, self.nodes, self.now_s)
            self.decisions += made
        return {name: one.weight for name, one in self.state.nodes.items()}

    def remember(self, name: str, **changes: Any) -> None:
        """Of a node, as if it had been so."""
        told = dict(self.state.nodes)
        told[name] = dataclasses.replace(told[name], **changes)
        self.state = dataclasses.replace(self.state, nodes=told)


node = lever_scenes.node


@pytest.mark.parametrize(
    ("changes", "room"),
    [
        ({}, 1.0),
        ({"queued_tokens": 8000}, 0.5),
        ({"queued_tokens": 16_000}, 0.0),
        ({"queued_tokens": 1, "prefill_tokens_per_s": 0.0}, 0.0),
        ({"queued_tokens": 90_000, "ahead": (wire.Ahead(512, 0), wire.Ahead(65_536, 60_000))}, 0.0),
        ({"queued_tokens": 90_000, "ahead": (wire.Ahead(512, 0), wire.Ahead(2048, 4000))}, 0.75),
        ({"running": 4, "tbt_p99_ms": 79.0}, 1.0),
        ({"running": 4, "tbt_p99_ms": 100.0}, 0.75),
        ({"running": 0, "tbt_p99_ms": 500.0}, 1.0),
        ({"kv_usage": 0.9}, 0.1),
    ],
)
def test_headroom_is_what_is_left_of_the_scarcest(changes: dict[str, Any], room: float) -> None:
    assert weights.headroom(lever_scenes.gpu_report(**changes), SLO) == pytest.approx(room)


def test_a_long_prompt_may_wait_longer_where_the_promise_grows_with_it() -> None:
    """40,000 tokens are a second; a prompt of 500 has half of one, one of 8,000 has two."""
    ahead = wire.Ahead(500, 4000), wire.Ahead(8000, 20_000)
    slo = Slo.model_validate({"ttft": {"perTokenMs": 0.2}})
    assert weights.headroom(lever_scenes.gpu_report(queued_tokens=90_000, ahead=ahead), slo) == pytest.approx(
        0.75
    )


def test_nodes_that_are_alike_are_told_nothing() -> None:
    lever = Lever(node("a", kv_usage=0.3), node("b", kv_usage=0.4), node("c", queued_tokens=4000))
    assert lever.after(60) == {"a": 1.0, "b": 1.0, "c": 1.0}
    assert lever.decisions == []


def test_a_node_with_less_headroom_gets_less() -> None:
    lever = Lever(node("a"), node("b", queued_tokens=12_000))
    assert lever.after(60) == {"a": 1.0, "b": 0.5}
    (decision,) = lever.decisions
    assert (decision.lever, decision.node, decision.before, decision.after) == ("weight", "b", "1", "0.5")
    assert decision.message == "headroom 0.25, the largest 1.00"
    assert lever.after(4 * REST_S, node("a"), node("b")) == {"a": 1.0, "b": 1.0}


def test_a_weight_falls_by_half_at_most_and_waits_for_what_that_does() -> None:
    lever = Lever(node("a"), node("b", kv_usage=1.0))
    seen = [lever.after(1)["b"] for _ in range(round(2 * DWELL_S) + 4)]
    assert sorted({*seen}, reverse=True) == [0.5, 0.2, 0.1]
    assert seen.count(0.5) >= DWELL_S - INTERVAL_S
    assert seen.count(0.2) >= DWELL_S - INTERVAL_S


def test_a_weight_that_rose_too_far_waits_longer_each_time() -> None:
    """A node that has room at 0.5 and none above."""
    lever, rises = Lever(node("a"), node("b", kv_usage=1.0)), []
    for _ in range(3600):
        before = lever.state.nodes["b"].weight
        room = node("b", kv_usage=0.95 if before > 0.5 else 0.0)
        if lever.after(1, node("a"), room)["b"] > before:
            rises.append(lever.now_s)
    pauses = [later - sooner for sooner, later in itertools.pairwise(rises)]
    assert 4 <= len(rises) <= 12
    assert max(pauses) > 8 * REST_S


def test_a_node_whose_queue_has_gone_is_back_after_two_rises() -> None:
    """Others carry its load meanwhile."""
    lever = Lever(node("a"), node("b", kv_usage=1.0))
    assert lever.after(1)["b"] == 0.5
    lever.remember("b", headroom=1.0)
    lever.decisions.clear()
    assert lever.after(3 * REST_S, node("a"), node("b"))["b"] == 1.0
    assert [(each.node, each.after) for each in lever.decisions] == [("b", "0.8"), ("b", "1")]


def test_the_only_best_node_is_not_lowered_while_the_others_may_not_rise() -> None:
    """With two nodes, less for the one is more for the other: that may not go round the pauses."""
    lever = Lever(node("a"), node("b", kv_usage=0.95))
    assert lever.after(2)["b"] == 0.5
    lever.remember("b", rest_s=200.0)
    assert lever.after(150, node("a", kv_usage=0.95), node("b")) == {"a": 1.0, "b": 0.5}
    assert lever.after(60, node("a", kv_usage=0.95), node("b"))["b"] == 1.0


def test_a_moment_counts_little() -> None:
    lever = Lever(node("a"), node("b"))
    lever.after(30)
    lever.after(INTERVAL_S, node("a"), node("b", queued_tokens=6000))
    assert lever.after(10, node("a"), node("b")) == {"a": 1.0, "b": 1.0}
    assert lever.decisions == []


def test_a_full_node_still_gets_some() -> None:
    assert Lever(node("a"), node("b", kv_usage=1.0)).after(3 * DWELL_S) == {"a": 1.0, "b": FLOOR}


def test_where_all_are_full_all_are_alike() -> None:
    assert Lever(node("a", kv_usage=0.95), node("b", kv_usage=1.0)).after(60) == {"a": 1.0, "b": 1.0}


def test_a_leaving_node_gets_nothing_at_once() -> None:
    lever = Lever(node("a"), node("b"))
    assert lever.after(0.1, node("a"), node("b", leaving=True)) == {"a": 1.0, "b": 0.0}
    assert lever.decisions[-1].reason == "Leaving"


def test_a_new_node_ramps_up() -> None:
    lever = Lever(node("a"))
    lever.after(30)
    seen = [lever.after(2, node("a"), node("b"))["b"] for _ in range(15)]
    assert seen[0] <= 0.2
    assert seen == sorted(seen)
    assert seen[int(RAMP_S / 2)] == 1.0
    assert lever.after(1)["a"] == 1.0


def test_nodes_of_a_new_service_are_all_alike() -> None:
    lever = Lever()
    assert lever.after(5, node("a"), node("b")) == {"a": 1.0, "b": 1.0}


def test_a_new_operator_takes_weights_over() -> None:
    lever = Lever(node("a", epoch=5, weight=1.0), node("b", epoch=5, weight=0.5, queued_tokens=12_000))
    assert lever.after(1)["b"] == 0.5
    assert lever.after(REST_S - 4, node("a", epoch=5), node("b", epoch=5, weight=0.5))["b"] == 0.5


def test_an_unknown_node_keeps_its_weight() -> None:
    lever = Lever(node("a"), node("b", queued_tokens=12_000))
    lever.after(60)
    assert lever.after(60, node("a"), Node("b", ready=True)) == {"a": 1.0, "b": 0.5}


changes = st.fixed_dictionaries(
    {},
    optional={
        "queued_tokens": st.integers(0, 1 << 50),
        "prefill_tokens_per_s": st.floats(0, 1e9),
        "kv_usage": st.floats(0, 1),
        "running": st.integers(0, 1000),
        "tbt_p99_ms": st.floats(0, 1e9),
        "leaving": st.booleans(),
        "ready": st.booleans(),
    },
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from("abcd"), changes), min_size=1, max_size=12))
def test_weights_keep_their_bounds(looks: list[dict[str, dict[str, Any]]]) -> None:
    lever = Lever()
    for look in looks:
        lever.nodes = tuple(node(name, **found) for name, found in look.items())
        found = lever.after(3) if look else {}
        for one in lever.nodes:
            weight = found[one.name]
            assert weight == 0.0 if one.leaving else weight >= FLOOR or not one.ready
            assert weight <= 1.0


def test_noise_moves_no_weight() -> None:
    lever = Lever(node("a"), node("b"), node("c"))
    for second in range(600):
        queues = [(37 * second * place) % 4000 for place in (3, 7, 11)]
        lever.after(1, *(node(name, queued_tokens=queue) for name, queue in zip("abc", queues, strict=True)))
    assert lever.decisions == []


# the loop -------------------------------------------------------------------------------------------------------

MINUTE_S = 60
loads = st.floats(0.01, 0.95)
delays = st.integers(0, 3)
lengths = st.sampled_from([300, 2000, 8000])


@settings(max_examples=20, deadline=None)
@given(loads, delays, st.lists(st.sampled_from([1.0, 1.5, 2.5, 4.0]), min_size=2, max_size=4), lengths)
def test_weights_come_to_rest_whatever_the_load_and_the_delay(
    load: float, delay_s: int, slowness: list[float], prompt_tokens: int
) -> None:
    """Nodes of different speed answer to their weight as queues do: the more steeply the busier they are. Where one
    is only just not overloaded the first move may be long in coming."""
    loop = WeighedNodes(load, slowness, delay_s=delay_s, prompt_tokens=prompt_tokens)
    for _ in range(40):
        loop.run(MINUTE_S)
        if loop.decisions:
            break
    loop.run(20 * MINUTE_S)
    before = len(loop.decisions)
    loop.run(20 * MINUTE_S)
    turns = loop.turns(loop.decisions[before:])
    assert max(turns.values(), default=0) <= 3, "rises that were taken back, or falls"


@settings(max_examples=15, deadline=None)
@given(st.floats(0.01, 0.9), delays, st.integers(2, 4), st.sampled_from([300, 2000]), st.integers(0, 99))
def test_nodes_that_are_alike_keep_their_weight_under_any_load(
    load: float, delay_s: int, nodes: int, prompt_tokens: int, seed: int
) -> None:
    loop = WeighedNodes(load, [1.0] * nodes, delay_s=delay_s, prompt_tokens=prompt_tokens, seed=seed)
    loop.run(20 * MINUTE_S)
    assert loop.decisions == []


# leaving ----------------------------------------------------------------------------------------------------


def test_who_has_the_least_to_lose_leaves_first() -> None:
    nodes = [
        node("busy", in_flight=9),
        node("cached", kv_usage=0.9),
        node("old", started_s=1.0),
        node("new", started_s=5.0),
        node("unready", ready=False, in_flight=3),
        node("going", leaving=True, in_flight=5),
        Node("unknown", ready=True),
    ]
    expected = ("going", "unready", "new", "old", "cached", "busy", "unknown")
    assert leaving.order(nodes) == leaving.order(reversed(nodes)) == expected
