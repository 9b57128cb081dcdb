"""Set-points are sent when they changed, were not taken, or run out, under epochs that only grow."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import lever_scenes
from drift_operator.levers import setpoints
from drift_operator.levers.observations import Node
from drift_operator.levers.setpoints import AGAIN_S, REFRESH_S, TTL_S, SentState, SetPoint


def point(name: str = "a", bounds: tuple[int, int] | None = None, weight: float = 1.0) -> SetPoint:
    return SetPoint(name, 0, 1, bounds, weight)


class Sending:
    """To nodes that take what they are told, unless a test says otherwise."""

    def __init__(self, interval_s: float = 1.0) -> None:
        self.state = SentState()
        self.interval_s = interval_s
        self.now_s = 0.0
        self.reports: dict[str, dict[str, Any]] = {}

    def after(self, seconds: float, *wanted: SetPoint, taken: bool = True) -> list[tuple[str, int]]:
        self.now_s += seconds
        nodes = [lever_scenes.node(one.node, **self.reports.get(one.node, {})) for one in wanted]
        self.state, sent = setpoints.due(
            self.state, nodes, {one.node: one for one in wanted}, self.interval_s, self.now_s
        )
        if taken:
            for one in sent:
                self.reports[one.node] = {
                    "epoch": one.epoch,
                    "generation": one.generation,
                    "bounds": one.bounds,
                    "weight": one.weight,
                    "applied": True,
                }
        return [(one.node, one.epoch) for one in sent]


def test_a_new_node_is_told_once() -> None:
    sending = Sending()
    assert sending.after(1, point()) == [("a", 1)]
    assert [sending.after(1, point()) for _ in range(10)] == [[]] * 10


def test_it_is_told_again_before_its_time_is_over() -> None:
    sending = Sending()
    sending.after(1, point())
    sent_s = [sending.now_s for _ in range(200) if sending.after(1, point())]
    assert sent_s[0] <= REFRESH_S + 1
    assert all(b - a <= TTL_S / 2 for a, b in itertools.pairwise(sent_s))
    assert sending.state.epoch == 1


def test_what_changed_gets_the_next_epoch() -> None:
    sending = Sending()
    sending.after(1, point("a"), point("b"))
    assert sending.after(1, point("a", (8, 16)), point("b")) == [("a", 2)]
    assert sending.after(1, point("a", (8, 16)), point("b", weight=0.5)) == [("b", 3)]


def test_changes_keep_their_interval_but_for_a_node_that_leaves() -> None:
    sending = Sending(interval_s=10.0)
    sending.after(1, point())
    assert sending.after(5, point(weight=0.5)) == []
    assert sending.after(1, point(weight=0.0)) == [("a", 2)]
    assert sending.after(10, point(weight=0.5)) == [("a", 3)]


def test_what_was_not_taken_is_sent_again() -> None:
    sending = Sending()
    assert sending.after(1, point(), taken=False) == [("a", 1)]
    assert sending.after(1, point()) == []
    assert sending.after(AGAIN_S, point()) == [("a", 1)]


def test_a_node_that_started_again_is_told() -> None:
    sending = Sending()
    sending.after(1, point(weight=0.5))
    sending.reports["a"] = {}
    assert sending.after(AGAIN_S, point(weight=0.5)) == [("a", 1)]


def test_epochs_go_above_every_one_that_a_node_reports() -> None:
    sending = Sending()
    sending.reports = {"a": {"epoch": 41, "weight": 0.5, "generation": 1}, "b": {"epoch": 7, "generation": 1}}
    assert sending.after(1, point("a"), point("b")) == [("a", 42), ("b", 7)]
    sending.reports["b"] = {"epoch": 99, "generation": 1}  # somebody else's word
    assert sending.after(1, point("a"), point("b")) == [("b", 100)]


def test_a_new_operator_says_nothing_new() -> None:
    sending = Sending()
    sending.reports["a"] = {"epoch": 41, "generation": 1, "bounds": (8, 16), "weight": 0.5, "applied": True}
    assert sending.after(1, point("a", (8, 16), 0.5)) == [("a", 41)]


def test_another_generation_is_told() -> None:
    sending = Sending()
    sending.after(1, point())
    assert sending.after(1, SetPoint("a", 0, 2, None, 1.0)) == [("a", 2)]


def test_nodes_that_are_gone_are_forgotten() -> None:
    sending = Sending()
    sending.after(1, point("a"), point("b"))
    sending.after(1, point("b"))
    assert set(sending.state.nodes) == {"b"}


def test_converged_is_when_all_keep_what_they_were_sent() -> None:
    sending = Sending()
    assert setpoints.converged(sending.state, ()).status == "Unknown"
    sending.after(1, point("a"), point("b"), taken=False)
    a = lever_scenes.node("a", epoch=1, applied=True)
    late = (
        lever_scenes.node("b", epoch=0),
        lever_scenes.node("b", epoch=1, applied=False),
        Node("b", ready=True),
    )
    for b in late:
        found = setpoints.converged(sending.state, (a, b))
        assert (found.status, found.reason) == ("False", "WaitingForNodes")
        assert found.message == "1 of 2 nodes keep their set-point; not yet b"
    assert (
        setpoints.converged(sending.state, (a, lever_scenes.node("b", epoch=1, applied=True))).status
        == "True"
    )


looks = st.tuples(
    st.floats(0.1, 30.0),
    st.dictionaries(
        st.sampled_from("abc"),
        st.tuples(st.sampled_from([None, (8, 16), (8, 24)]), st.sampled_from([0.0, 0.5, 1.0])),
    ),
    st.booleans(),
    st.integers(0, 1 << 40),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(looks, max_size=30))
def test_every_node_is_sent_growing_epochs(taken: list[Any]) -> None:
    sending, last = Sending(), dict[str, int]()
    for seconds, wanted, took, foreign in taken:
        if foreign % 7 == 0:
            sending.reports["a"] = {"epoch": foreign}
        before = max((sending.reports.get(name, {}).get("epoch", 0) for name in wanted), default=0)
        for name, epoch in sending.after(
            seconds, *(point(name, *found) for name, found in wanted.items()), taken=took
        ):
            told = sending.reports.get(name, {}).get("epoch", 0)
            assert epoch >= told
            assert epoch >= 1
            last[name] = epoch
        assert sending.state.epoch >= before
