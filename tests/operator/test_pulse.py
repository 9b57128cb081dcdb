"""Whether the loops move."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from drift_operator.doors.pulse import PATIENCE_S, ROUNDS_MISSED, Pulse


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_loop_that_beats_is_not_late() -> None:
    clock = Clock()
    pulse = Pulse(clock)
    pulse.expect("watch", 60)
    for clock.now_s in range(0, 1000, 60):
        pulse.beat("watch")
    assert not pulse.late()


def test_a_silent_loop_is_late_by_its_name_and_how_long() -> None:
    clock = Clock()
    pulse = Pulse(clock)
    pulse.expect("watch", 60)
    pulse.expect("push", 3)
    clock.now_s = 100
    assert [str(late) for late in pulse.late()] == ["loop push has not moved for 100 s; its limit is 30 s"]


def test_a_loop_that_never_begins_is_late_too() -> None:
    clock = Clock()
    pulse = Pulse(clock)
    pulse.expect("watch", 60)
    clock.now_s = 241
    assert [late.loop for late in pulse.late()] == ["watch"]


def test_a_loop_that_ended_as_it_should_is_not_missed() -> None:
    clock = Clock()
    pulse = Pulse(clock)
    pulse.expect("watch", 60)
    pulse.forget("watch")
    clock.now_s = 1000
    pulse.beat("watch")
    assert not pulse.late()


@settings(deadline=None)
@given(st.floats(0.1, 1000), st.lists(st.floats(0, 5000), max_size=20))
def test_a_loop_is_late_exactly_after_its_limit(period_s: float, pauses_s: list[float]) -> None:
    clock = Clock()
    pulse = Pulse(clock)
    pulse.expect("loop", period_s)
    for pause_s in pauses_s:
        pulse.beat("loop")
        since_s, clock.now_s = clock.now_s, clock.now_s + pause_s
        silent_s = clock.now_s - since_s
        assert bool(pulse.late()) is (silent_s > max(PATIENCE_S, ROUNDS_MISSED * period_s))
