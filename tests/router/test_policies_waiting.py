"""The line of requests that wait in the router, against a sorted list; and the curves over time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_router.policies import fading, warming
from drift_router.policies.waiting import LONGEST_RETRY_S, Line

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 30), st.sampled_from([0.0, 1.0, 2.5]), st.integers(-1, 1)),
        st.tuples(st.just("remove"), st.integers(0, 30)),
        st.tuples(st.just("pop")),
    ),
    max_size=120,
)


@given(STEPS, st.integers(0, 12))
def test_a_line_is_a_sorted_list_with_an_end(steps: list[tuple[object, ...]], limit: int) -> None:
    line: Line[int] = Line(limit)
    model: list[tuple[int, float, int, int]] = []  # (-priority, deadline, number, key)
    number = 0
    for step in steps:
        match step:
            case ("add", int(key), float(deadline_s), int(priority)):
                if any(entry[3] == key for entry in model):
                    continue
                room = len(model) < limit
                assert line.add(key, deadline_s, priority) is room
                if room:
                    number += 1
                    model.append((-priority, deadline_s, number, key))
                    model.sort()
            case ("remove", int(key)):
                assert line.remove(key) is any(entry[3] == key for entry in model)
                model = [entry for entry in model if entry[3] != key]
            case ("pop",):
                assert line.peek() == (model[0][3] if model else None)
                assert line.pop() == (model.pop(0)[3] if model else None)
        assert len(line) == len(model)
        assert all(entry[3] in line for entry in model)


def test_clients_that_go_away_leave_nothing() -> None:
    line: Line[int] = Line(10)
    for key in range(10_000):
        assert line.add(key, 1.0, 0)
        assert line.remove(key)
    assert len(line._heap) < 200


def test_when_to_come_back() -> None:
    line: Line[str] = Line(10)
    assert line.retry_after_s(0.5, 1.0, now_s=0.0) == 1
    assert line.retry_after_s(4.2, 1.0, now_s=0.0) == 4
    for key in "abcdef":
        line.add(key, 1.0, 0)
    assert line.retry_after_s(4.2, 1.0, now_s=0.0) == 4, "nobody knows how fast they go"
    for tick in range(200):
        line.served(tick / 2)
    assert line.retry_after_s(4.2, 1.0, now_s=99.5) == 7, "six more, two a second"
    assert line.retry_after_s(1e9, 1.0, now_s=99.5) == LONGEST_RETRY_S
    assert line.retry_after_s(4.2, 1.0, now_s=200.0) == 4, "that was long ago"


def test_lines_that_can_not_be() -> None:
    with pytest.raises(ValueError, match="limit: -1 is below 0"):
        Line(-1)


def test_a_node_warms_up() -> None:
    assert warming.warmth(-5.0) == warming.warmth(0.0) == warming.FLOOR
    assert warming.warmth(warming.RAMP_S / 2) == pytest.approx((1 + warming.FLOOR) / 2)
    assert warming.warmth(warming.RAMP_S) == warming.warmth(1e9) == 1.0


def test_assigned_work_fades() -> None:
    assert fading.faded(100.0, 0.0) == fading.faded(100.0, -3.0) == 100.0
    assert fading.faded(100.0, fading.HALF_LIFE_S) == pytest.approx(50.0)
    assert fading.faded(fading.faded(8.0, 10.0), 20.0) == pytest.approx(fading.faded(8.0, 30.0))
