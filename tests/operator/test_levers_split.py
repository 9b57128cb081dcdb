"""Bounds of the split follow what burns, one legal split at a time, and come back slowly."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lever_scenes
from drift_engine import wire
from drift_operator.driftservice import DriftService
from drift_operator.levers import split
from drift_operator.levers.attainment import Judged
from drift_operator.levers.decisions import Decision
from drift_operator.levers.observations import Node
from drift_operator.levers.split import RELAX_S, Bounds, Evidence, SplitState

LEGAL = tuple(range(8, 121, 8))
GOOD = Judged(1000, 0)
BAD = Judged(950, 50)
WORSE = Judged(800, 200)
SO_SO = Judged(992, 8)


def spec(**multiplexing: Any) -> DriftService:
    return lever_scenes.service({"multiplexing": multiplexing})


class Lever:
    """Nodes under one service's split lever."""

    def __init__(self, service: DriftService | None = None, nodes: Sequence[Node] | None = None) -> None:
        self.service = service or lever_scenes.service()
        self.nodes = tuple(nodes if nodes is not None else [lever_scenes.node("a")])
        self.now_s = 1000.0
        self.state = split.adopt(SplitState(), self.service, self.nodes, self.now_s)

    def after(self, seconds: float, ttft: Judged = GOOD, tbt: Judged = GOOD) -> tuple[Decision, ...]:
        self.now_s += seconds
        self.state = split.adopt(self.state, self.service, self.nodes, self.now_s)
        known = [node for node in self.nodes if node.report is not None]
        self.state, made = split.move(self.state, self.service, known, Evidence(ttft, tbt), self.now_s)
        return made

    def bounds(self, name: str = "a") -> tuple[int, int]:
        found = self.state.nodes[name]
        return found.floor, found.ceiling


def test_late_tokens_raise_the_floor_by_one_legal_split() -> None:
    lever = Lever()
    (decision,) = lever.after(10, tbt=BAD)
    assert lever.bounds() == (16, 120)
    assert (decision.lever, decision.node, decision.before, decision.after) == (
        "split",
        "a",
        "8-120",
        "16-120",
    )
    assert decision.reason == "TbtBurning"
    assert decision.message == "50 of 1000 requests missed their time between tokens since the last change"


def test_late_first_tokens_lower_the_ceiling_by_one_legal_split() -> None:
    lever = Lever()
    (decision,) = lever.after(10, ttft=BAD)
    assert (lever.bounds(), decision.reason) == ((8, 112), "TtftBurning")


@pytest.mark.parametrize(("ttft", "tbt"), [(BAD, BAD), (GOOD, GOOD), (SO_SO, SO_SO), (Judged(), Judged())])
def test_nothing_moves_where_no_split_would_help(ttft: Judged, tbt: Judged) -> None:
    lever = Lever()
    assert lever.after(10, ttft, tbt) == ()
    assert lever.bounds() == (8, 120)


def test_where_both_are_missed_and_tokens_far_more_decode_gets_a_step() -> None:
    lever = Lever()
    (decision,) = lever.after(10, ttft=BAD, tbt=WORSE)
    assert (lever.bounds(), decision.reason) == ((16, 120), "TbtBurning")


def test_first_tokens_that_are_late_in_an_overload_take_no_sms_from_tokens_that_are_late_too() -> None:
    lever = Lever()
    assert lever.after(10, ttft=WORSE, tbt=BAD) == ()
    assert lever.bounds() == (8, 120)


def test_where_both_are_missed_and_prompts_wait_for_rows_decode_gets_a_step() -> None:
    lever = Lever(nodes=[lever_scenes.node("a", running=64, max_running=64)])
    (decision,) = lever.after(10, ttft=WORSE, tbt=BAD)
    assert (lever.bounds(), decision.reason) == ((16, 120), "TbtBurning")


def test_requests_that_wait_for_rows_are_not_helped_by_fewer_decode_sms() -> None:
    lever = Lever()
    lever.after(10, ttft=BAD)
    lever.after(10, ttft=BAD)
    lever.nodes = (lever_scenes.node("a", running=64, max_running=64),)
    (decision,) = lever.after(10, ttft=BAD)
    assert (lever.bounds(), decision.reason) == ((8, 112), "WaitingForRows")
    lever.after(10, ttft=BAD)
    assert lever.after(10, ttft=BAD) == ()
    assert lever.bounds() == (8, 120)


def test_bounds_that_help_neither_promise_are_widened_again() -> None:
    lever = Lever()
    lever.after(10, ttft=BAD)
    assert lever.after(10, ttft=BAD, tbt=BAD) == ()
    (decision,) = lever.after(RELAX_S, ttft=BAD, tbt=BAD)
    assert (lever.bounds(), decision.reason) == ((8, 120), "NoSplitHelps")


def test_a_floor_that_was_raised_comes_down_before_the_ceiling() -> None:
    lever = Lever()
    lever.after(10, tbt=BAD)
    assert lever.after(10, ttft=BAD) == ()  # what helps one promise just now broke the other
    lever.after(RELAX_S, ttft=BAD)
    assert lever.bounds() == (8, 120)


def test_a_step_waits_for_the_dwell_and_the_interval() -> None:
    lever = Lever(spec(updateInterval="5s", minDwell="20s"))
    assert lever.after(20, tbt=BAD)
    assert not lever.after(19, tbt=BAD)
    assert lever.after(1, tbt=BAD)
    quick = Lever(spec(updateInterval="5s", minDwell="0s"))
    assert quick.after(10, tbt=BAD)
    assert not quick.after(4, tbt=BAD)
    assert quick.after(1, tbt=BAD)


def test_bounds_end_at_the_device() -> None:
    lever = Lever()
    for _ in range(30):
        lever.after(10, tbt=BAD)
    assert lever.bounds() == (120, 120)
    assert lever.after(10, tbt=BAD) == ()


def test_what_was_narrowed_is_widened_slowly() -> None:
    lever = Lever()
    for _ in range(3):
        lever.after(10, tbt=BAD)
    assert lever.after(RELAX_S - 1) == ()
    assert [decision.reason for decision in lever.after(1)] == ["Relaxing"]
    assert lever.bounds() == (24, 120)
    assert lever.after(RELAX_S - 1, ttft=SO_SO) == ()
    assert lever.after(2, ttft=SO_SO) == ()  # half of the allowance is used: not now
    lever.after(1)
    lever.after(RELAX_S)
    assert lever.bounds() == (8, 120)
    assert lever.after(10 * RELAX_S) == ()


def test_steps_back_that_have_to_be_taken_again_get_rare() -> None:
    """A load that needs a floor of 32, for an hour: the lever tries lower ones less and less often."""
    lever, tries = Lever(), []
    for _ in range(3600):
        tbt = GOOD if lever.bounds()[0] >= 32 else BAD
        if any(decision.reason == "Relaxing" for decision in lever.after(1, tbt=tbt)):
            tries.append(lever.now_s)
    assert 3 <= len(tries) <= 10
    assert tries[-1] - tries[-2] > 4 * RELAX_S


def test_late_nodes_are_moved_where_any_are_told_apart() -> None:
    nodes = [
        lever_scenes.node("a", running=4, tbt_p99_ms=200.0),
        lever_scenes.node("b", running=4, tbt_p99_ms=30.0),
    ]
    lever = Lever(nodes=nodes)
    lever.after(10, tbt=BAD)
    assert (lever.bounds("a"), lever.bounds("b")) == ((16, 120), (8, 120))
    lever = Lever(nodes=[lever_scenes.node("a", queued_tokens=10_000), lever_scenes.node("b")])
    lever.after(10, ttft=BAD)
    assert (lever.bounds("a"), lever.bounds("b")) == ((8, 112), (8, 120))
    lever = Lever(nodes=lever_scenes.nodes(3))
    (decision,) = lever.after(10, tbt=BAD)
    assert decision.node is None
    assert "on 3 nodes" in decision.message


@pytest.mark.parametrize(
    ("given_bounds", "legal"),
    [
        ({}, LEGAL),
        ({"min": 16, "max": 40}, (16, 24, 32, 40)),
        ({"min": 17, "max": 31}, (24,)),
        ({"min": 17, "max": 20}, (24,)),
        ({"min": 500}, (120,)),
        ({"max": 4}, (8,)),
    ],
)
def test_the_specs_bounds_are_met_as_the_device_can(
    given_bounds: dict[str, int], legal: tuple[int, ...]
) -> None:
    lever = Lever(spec(decodeSMs=given_bounds))
    assert lever.state.nodes["a"] == Bounds(legal[0], legal[-1], legal)


def test_an_initial_split_is_where_a_fresh_node_begins() -> None:
    lever = Lever(spec(decodeSMs={"min": 16, "initial": 41, "max": 64}))
    assert lever.bounds() == (40, 40)
    lever.after(RELAX_S + 10)
    assert lever.bounds() == (32, 48)


def test_a_node_keeps_the_bounds_of_an_earlier_operator() -> None:
    lever = Lever(nodes=[lever_scenes.node("a", epoch=7, bounds=(24, 64))])
    assert lever.bounds() == (24, 64)
    free = Lever(spec(decodeSMs={"initial": 40}), [lever_scenes.node("a", epoch=7, bounds=None)])
    assert free.bounds() == (8, 120)


def test_changed_bounds_of_the_spec_hold_at_once() -> None:
    lever = Lever(spec(decodeSMs={"min": 16, "max": 64}))
    lever.after(10, tbt=BAD)
    assert lever.bounds() == (24, 64)
    lever.service = spec(decodeSMs={"min": 32, "max": 48})
    lever.after(0)
    assert lever.bounds() == (32, 48)
    lever.service = spec(decodeSMs={"min": 8, "max": 96})
    lever.after(0)
    assert lever.bounds() == (8, 96)


def test_an_unknown_node_keeps_its_bounds_and_one_that_is_gone_is_forgotten() -> None:
    lever = Lever(nodes=[lever_scenes.node("a"), lever_scenes.node("b")])
    lever.after(10, tbt=BAD)
    lever.nodes = (Node("a", ready=True),)
    lever.after(10, tbt=BAD)
    assert set(lever.state.nodes) == {"a"}
    assert lever.bounds() == (16, 120)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"mode": wire.Mode.FUSED}, "ModeDoesNotSplit"),
        ({"legal_splits": ()}, "DeviceCannotBeSplit"),
        ({"legal_splits": (wire.Split(1, 1),)}, "DeviceCannotBeSplit"),
    ],
)
def test_what_cannot_be_split_is_left_alone_and_said(changes: dict[str, Any], reason: str) -> None:
    lever = Lever(nodes=[lever_scenes.node("a", **changes)])
    assert lever.after(10, tbt=BAD) == ()
    assert lever.state.nodes == {}
    assert split.why_not([lever_scenes.gpu_report("a", **changes)])[0] == reason


def test_mixed_devices_are_each_moved_by_their_own_splits() -> None:
    small = (wire.Split(1, 3), wire.Split(2, 2), wire.Split(3, 1))
    lever = Lever(nodes=[lever_scenes.node("a"), lever_scenes.node("b", legal_splits=small)])
    lever.after(10, tbt=BAD)
    assert (lever.bounds("a"), lever.bounds("b")) == ((16, 120), (2, 3))


judged = st.builds(Judged, st.integers(0, 1000), st.integers(0, 1000))
steps = st.tuples(
    st.floats(0.0, 100.0), judged, judged, st.sampled_from([None, (8, 64), (30, 50), (121, 125)])
)


@settings(max_examples=100, deadline=None)
@given(st.lists(steps, max_size=40))
def test_bounds_are_always_legal(taken: list[tuple[float, Judged, Judged, tuple[int, int] | None]]) -> None:
    lever = Lever()
    for seconds, ttft, tbt, allowed in taken:
        if allowed is not None:
            lever.service = spec(decodeSMs={"min": allowed[0], "max": allowed[1]})
        lever.after(seconds, ttft, tbt)
        floor, ceiling = lever.bounds()
        assert floor <= ceiling
        assert {floor, ceiling} <= set(split.allowed(LEGAL, lever.service.spec.multiplexing.decode_sms))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("missing", [0.002, 0.01, 0.03])
def test_noise_turns_the_split_rarely(seed: int, missing: float) -> None:
    """An hour of misses by chance that no split changes."""
    dice = random.Random(seed)
    lever, turns, last = Lever(), 0, 0
    since_s = lever.now_s
    for _ in range(720):
        counted = int(10 * min(60.0, lever.now_s - since_s))
        draws = [sum(dice.random() < missing for _ in range(counted)) for _ in range(2)]
        before = lever.bounds()
        if lever.after(5, Judged(counted - draws[0], draws[0]), Judged(counted - draws[1], draws[1])):
            since_s = lever.now_s
            after = lever.bounds()
            direction = 1 if after[0] + after[1] > before[0] + before[1] else -1
            turns += direction != last
            last = direction
    assert turns <= 20
