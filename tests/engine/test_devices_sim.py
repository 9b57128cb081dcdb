"""The device that only takes its time: who works when, for how long, beside whom."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sim_core
from drift_engine import wire
from drift_engine.clock import MonotonicClock, VirtualClock
from drift_engine.devices.base import Event, Pass, Row
from drift_engine.devices.sim import SimDevice, SimEvent
from drift_engine.devices.sim_tokens import CountedTokens
from drift_engine.latency.loads import Load

HALVES = wire.Split(4, 4)
SMALL = wire.Split(2, 6)
DAY_S = 86_400.0
YEAR_S = 365 * DAY_S


class Seconds:
    """A decode row takes 1 s, 1/8 more per context token; a prefill token 1 s; whatever the lane. Twice as long for
    decode and half as long again for prefill while a neighbour works."""

    def pass_s(self, load: Load, sms: int) -> float:
        return load.decode_rows + load.decode_context_tokens / 8 + load.new_tokens

    def slowdown(self, load: Load, sms: int, neighbour: Load, neighbour_sms: int) -> float:
        return 1.5 if load.prefill_rows else 2.0


class Uniform:
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def pass_s(self, load: Load, sms: int) -> float:
        return self.seconds

    def slowdown(self, load: Load, sms: int, neighbour: Load, neighbour_sms: int) -> float:
        return 1.0


class Ticking:
    """A clock that runs by itself: every look at it takes as long as a float can tell."""

    def __init__(self, now_s: float, tick_s: float) -> None:
        self.time_s = now_s
        self.tick_s = tick_s

    def now_s(self) -> float:
        self.time_s += self.tick_s
        return self.time_s

    def sleep_until(self, at_s: float, timeout_s: float) -> None:
        self.time_s += max(0.0, min(at_s - self.time_s, timeout_s))


class Heard(list[tuple[str, list[float]]]):
    def __call__(self, row: Row, times_s: object) -> None:
        assert isinstance(times_s, list)
        self.append((row.request_id, list(times_s)))


def device(
    clock: VirtualClock | None = None, *, overhead_s: float = 0.0, heard: Heard | None = None
) -> SimDevice:
    return SimDevice(
        clock or VirtualClock(),
        Seconds(),
        CountedTokens(),
        sms=sim_core.SMS,
        splits=sim_core.SPLITS,
        layers=sim_core.LAYERS,
        overhead_s=overhead_s,
        lookahead_steps=64,
        heard=heard,
    )


def decode(context: int = 0, *, rows: int = 1, steps: int = 1) -> Pass:
    """`context` tokens in all, by Seconds' count (a row's own token among them)."""
    starts = [context - 1, *[-1] * (rows - 1)]
    made = [sim_core.row([7], range(64), start=start, name=f"d{i}") for i, start in enumerate(starts)]
    return Pass(tuple(made), (), steps)


def prefill(tokens: int, name: str = "p") -> Pass:
    assert tokens > 1
    return Pass((), (sim_core.row([7] * tokens, range(64), name=name),))


def end_s(sim: SimDevice, event: Event) -> float:
    """When it is done, by its results; the clock stands there."""
    while not sim.wait([event], 1e9):
        pass
    results = event.results()
    assert results.start_s + results.pass_s == sim.clock.now_s()
    return sim.clock.now_s()


def test_a_pass_ends_after_its_time_and_overhead() -> None:
    sim = device(overhead_s=0.25)
    event = sim.whole.launch(decode(16))
    assert not event.done()
    assert end_s(sim, event) == 3.25
    assert set(event.results().drawn) == {"d0"}
    assert end_s(sim, sim.whole.launch(prefill(5))) == 8.5
    assert sim.next_end_s() == float("inf")


def test_passes_of_one_lane_follow_each_other() -> None:
    sim = device()
    first, second = sim.whole.launch(prefill(2)), sim.whole.launch(prefill(3))
    assert end_s(sim, second) == 5.0
    assert first.results().start_s + first.results().pass_s == second.results().start_s == 2.0
    assert sim.ended == 2


def test_lanes_slow_each_other_down_only_while_both_work() -> None:
    sim = device()
    decoding, prefilling = sim.lanes(HALVES)
    long = prefilling.launch(prefill(10))
    one = decoding.launch(
        decode(0)
    )  # 1 s alone, 2 s beside the prefill, which does 2 / 1.5 of its 10 s meanwhile
    assert end_s(sim, one) == 2.0
    clock = sim.clock
    assert isinstance(clock, VirtualClock)
    clock.horizon_s = 3.0
    assert not sim.wait([long], 1e9)  # a second alone
    assert clock.now_s() == 3.0
    clock.horizon_s = float("inf")
    two = decoding.launch(decode(8))  # 2 s alone
    assert end_s(sim, two) == 7.0
    assert end_s(sim, long) == pytest.approx(7.0 + 10 - (2 / 1.5 + 1 + 4 / 1.5), abs=1e-12)


def test_the_slower_of_several_neighbours_counts() -> None:
    sim = device()
    decoding, prefilling = sim.lanes(HALVES)
    events = [
        decoding.launch(decode(0)),
        prefilling.launch(prefill(2)),
        sim.lanes(SMALL)[1].launch(prefill(4)),
    ]
    assert end_s(sim, events[0]) == 2.0
    assert end_s(sim, events[1]) == 3.0
    assert end_s(sim, events[2]) == 3.0 + 4 - 2.0


@given(
    st.lists(
        st.tuples(st.integers(0, 6), st.integers(0, 40), st.booleans()), min_size=1, max_size=12
    ),  # (after so long, size, which lane)
    st.lists(st.integers(1, 5), max_size=20),
)
def test_when_anybody_looks_changes_nothing(work: list[tuple[int, int, bool]], looks: list[int]) -> None:
    """The same launches end at the same times, whatever the horizons between."""

    def run(stops: list[float]) -> list[float]:
        sim = device()
        clock = sim.clock
        assert isinstance(clock, VirtualClock)
        lanes, at_s, events = sim.lanes(HALVES), 0.0, []

        def go(to_s: float) -> None:
            clock.horizon_s = to_s
            while clock.now_s() < to_s and sim.next_end_s() < float("inf"):
                sim.wait([], 1e9)
            clock.sleep_until(to_s, 0.0)

        for gap, size, first in work:
            at_s += gap
            for stop in sorted(stops):
                if clock.now_s() < stop < at_s:
                    go(stop)
            go(at_s)
            events.append(lanes[0].launch(decode(size)) if first else lanes[1].launch(prefill(size + 2)))
        clock.horizon_s = float("inf")
        for event in events:
            if not event.done():
                sim.wait([event], 1e9)
        return [event.results().start_s + event.results().pass_s for event in events]

    assert run([float(look) for look in looks]) == pytest.approx(run([]), abs=1e-9)


def test_layers_of_a_cut_pass_run_in_order_over_different_lanes() -> None:
    heard = Heard()
    sim = device(heard=heard)
    cut = sim.cut(prefill(8))  # 2 s a layer
    parts = [
        sim.lanes(HALVES)[1].launch_layers(cut, 1),
        sim.lanes(SMALL)[1].launch_layers(cut, 3),
        sim.whole.launch_layers(cut, 4),
    ]
    other = sim.lanes(SMALL)[1].launch(prefill(2, "q"))  # behind layers that wait for another lane
    assert (cut.layers, cut.launched) == (4, 4)
    assert [end_s(sim, part) for part in parts[:2]] == [2.0, 6.0]
    assert not heard
    assert parts[0].results().drawn == {}
    assert end_s(sim, parts[2]) == 9.0  # the last layer beside the other
    assert other.done()
    assert sorted(heard) == [("p", [9.0]), ("q", [9.0])]
    assert list(parts[2].results().drawn) == ["p"]


def test_a_cut_pass_is_dropped_between_layers_only() -> None:
    sim = device()
    cut = sim.cut(prefill(8))
    cut.drop()
    cut = sim.cut(prefill(8))
    part = sim.whole.launch_layers(cut, 2)
    with pytest.raises(AssertionError):
        cut.drop()
    end_s(sim, part)
    cut.drop()


def test_steps_grow_with_their_contexts() -> None:
    heard = Heard()
    sim = device(overhead_s=0.5, heard=heard)
    event = sim.whole.launch(decode(8, rows=2, steps=4))  # 2 rows, context 8, 10, 12, 14
    assert end_s(sim, event) == 3.5 + 3.75 + 4.0 + 4.25
    assert heard == [("d0", [3.5, 7.25, 11.25, 15.5]), ("d1", [3.5, 7.25, 11.25, 15.5])]
    assert {name: len(drawn) for name, drawn in event.results().drawn.items()} == {"d0": 4, "d1": 4}


def test_steps_beside_a_prefill_that_ends_in_their_middle() -> None:
    heard = Heard()
    sim = device(heard=heard)
    decoding, prefilling = sim.lanes(HALVES)
    event = decoding.launch(decode(0, steps=3))  # 1, 1.125, 1.25 alone
    prefilling.launch(prefill(2))  # until 3
    end_s(sim, event)
    assert heard[-1] == ("d0", [2.0, 3.0 + 0.625, 3.0 + 0.625 + 1.25])


@pytest.mark.parametrize(
    ("at_s", "ends"),
    [(0.0, [1.0]), (0.5, [1.0]), (1.0, [1.0, 2.125]), (2.0, [1.0, 2.125]), (2.5, [1.0, 2.125, 3.375])],
)
def test_recall_ends_with_the_step_at_work(at_s: float, ends: list[float]) -> None:
    heard = Heard()
    sim = device(heard=heard)
    clock = sim.clock
    assert isinstance(clock, VirtualClock)
    event = sim.whole.launch(decode(0, steps=10))
    behind = sim.whole.launch(prefill(2))
    clock.horizon_s = at_s
    assert not sim.wait([event], 1e9)
    sim.recall(event)
    sim.recall(event)
    clock.horizon_s = float("inf")
    assert end_s(sim, event) == ends[-1]
    assert heard == [("d0", ends)]
    assert len(event.results().drawn["d0"]) == len(ends)
    assert end_s(sim, behind) == ends[-1] + 2


def test_recall_of_what_is_done_or_not_begun() -> None:
    sim = device()
    event = sim.whole.launch(decode(0, steps=2))
    behind = sim.whole.launch(decode(0, steps=5))
    assert end_s(sim, event) == 2.125
    sim.recall(event)
    assert len(event.results().drawn["d0"]) == 2
    sim.recall(behind)
    assert end_s(sim, behind) == 3.125


def test_a_virtual_clock_stops_at_its_horizon() -> None:
    clock = VirtualClock()
    sim = device(clock)
    event = sim.whole.launch(prefill(4))
    clock.horizon_s = 3.0
    assert not sim.wait([event], 0.001)
    assert not sim.wait([event], 1e9)
    assert clock.now_s() == 3.0
    clock.horizon_s = 4.0
    assert sim.wait([event], 0.001)
    assert clock.now_s() == 4.0


def test_waiting_for_one_lane_passes_the_ends_of_another() -> None:
    sim = device()
    decoding, prefilling = sim.lanes(HALVES)
    short, long = decoding.launch(decode(0)), prefilling.launch(prefill(8))
    while not sim.wait([long], 1e-3):
        pass
    assert short.done()
    assert sim.clock.now_s() == pytest.approx(2.0 + 8 - 2 / 1.5, abs=1e-12)


def test_a_real_clock_waits_no_longer_than_asked() -> None:
    clock = MonotonicClock()
    sim = SimDevice(clock, Uniform(1e6), CountedTokens(), sms=8, splits=(), layers=1)
    event = sim.whole.launch(prefill(2))
    assert not sim.wait([event], 0.01)  # the test's own time-out tells when this never returns
    assert not event.done()
    quick = SimDevice(clock, Uniform(0.001), CountedTokens(), sms=8, splits=(), layers=1)
    begun_s = clock.now_s()
    event = quick.whole.launch(prefill(2))
    assert quick.wait([event], 60.0)
    assert clock.now_s() - begun_s >= 0.001
    assert event.results().pass_s == pytest.approx(0.001, abs=1e-8)


@pytest.mark.parametrize("at_s", [0.0, DAY_S, YEAR_S])
def test_nothing_is_lost_in_rounding(at_s: float) -> None:
    """Thousands of passes whose seconds no float holds take what they take, side by side."""
    clock = VirtualClock()
    clock.sleep_until(at_s, 0.0)
    sim = SimDevice(clock, Uniform(0.1 / 3), CountedTokens(), sms=8, splits=sim_core.SPLITS, layers=1)
    decoding, prefilling = sim.lanes(HALVES)
    beside = [prefilling.launch(prefill(2)) for _ in range(3000)]
    for _ in range(1000):
        end = decoding.launch(decode(1, steps=3))
        while not sim.wait([end], 1.0):
            pass
    assert clock.now_s() - at_s == pytest.approx(100.0, abs=3000 * max(1e-9, at_s * 1e-15))
    while not sim.wait([beside[-1]], 1.0):
        pass
    assert clock.now_s() - at_s == pytest.approx(100.0, abs=3000 * max(1e-9, at_s * 1e-15))


@pytest.mark.parametrize("at_s", [0.0, DAY_S, YEAR_S, 10 * YEAR_S])
def test_work_ends_on_a_machine_that_has_been_up_for_long(at_s: float) -> None:
    """Floats of seconds are further apart there than the least that is left of a pass."""
    clock = Ticking(at_s, 1e-7)
    sim = SimDevice(clock, Uniform(0.0007), CountedTokens(), sms=8, splits=sim_core.SPLITS, layers=4)
    decoding, prefilling = sim.lanes(HALVES)
    for _ in range(200):
        cut = sim.cut(prefill(2))
        events = [decoding.launch(decode(1)), *(prefilling.launch_layers(cut, stop) for stop in (1, 2, 4))]
        looks = 0
        while not all(event.done() for event in events):
            sim.wait([event for event in events if not event.done()], 1e-4)
            looks += 1
            assert looks < 1000
    assert clock.time_s - at_s < 200 * 0.0008


def test_results_of_running_work_are_a_bug() -> None:
    event = device().whole.launch(prefill(2))
    assert isinstance(event, SimEvent)
    with pytest.raises(AssertionError):
        event.results()
