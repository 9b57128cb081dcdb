"""A device that computes nothing and knows how long everything takes: lanes of simulated hardware.

Behind a virtual clock, which leaps from one end of work to the next, it is the simulator's; behind a real one it
stands in for a GPU, for tests of routers and clusters. Both run the same loop, planner and cache as a node that
computes. Free of torch.

Two lanes at work slow each other down for as long as both are: every change of who works changes the pace of the
rest. Parts of two different splits that are in use for the moment of a change are taken for disjoint.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from drift_engine import wire
from drift_engine.devices.base import Clock, CutPass, Drawn, Event, Pass, Results, Row, load_of
from drift_engine.latency.loads import Load

_ROUNDING_S = 1e-9
_ROUNDING_STEPS = 4
"""Sums of float seconds that should be equal differ by less than one or the other: a float of a day in seconds steps
by 1e-11, one of a machine that has been up for a year by 4e-9, and less than a step ahead time never comes."""


class Timing(Protocol):
    """How long passes take on the hardware, in seconds."""

    def pass_s(self, load: Load, sms: int) -> float:
        """Alone, on a lane of `sms` SMs."""

    def slowdown(self, load: Load, sms: int, neighbour: Load, neighbour_sms: int) -> float:
        """At least 1: how much longer while the other lane works on `neighbour`."""


class Sleeper(Clock, Protocol):
    def sleep_until(self, at_s: float, timeout_s: float) -> None:
        """Lets time pass until `at_s`, or less."""


class Tokens(Protocol):
    """What a simulated model says."""

    def write(self, row: Row) -> None:
        """The row's tokens were computed: their KV is in its pages."""

    def draw(self, row: Row, steps: int) -> Sequence[Drawn]:
        """The tokens that follow; those of all steps but the last are written too."""


Heard = Callable[[Row, Sequence[float]], None]
"""A row and when each of its tokens was drawn, in seconds of the device's clock."""


class SimEvent:
    """Work on a lane: as many equal steps, each longer than the one before by what the contexts grew."""

    def __init__(
        self, lane: SimLane, load: Load, steps: int, first_s: float, growth_s: float, after: SimEvent | None
    ) -> None:
        self.lane = lane
        self.load = load
        self.steps = steps
        self.after = after  # the same pass's layers that were launched before
        self.rows: tuple[Row, ...] = ()  # that are complete with this work
        self.ends_s: list[float] = []  # of the steps that are done, by the device's clock
        self.start_s: float | None = None
        self._first_s = first_s
        self._growth_s = growth_s
        self._progress_s = 0.0  # of what it takes alone
        self._drawn: dict[str, Sequence[Drawn]] = {}

    def done(self) -> bool:
        return len(self.ends_s) == self.steps

    def results(self) -> Results:
        assert self.done(), "results of a pass that is still running"
        assert self.start_s is not None
        seconds = self.ends_s[-1] - self.start_s
        return Results(self._drawn, self.start_s, seconds, seconds)

    def ready(self) -> bool:
        return self.after is None or self.after.done()

    def left_s(self) -> float:
        """Alone."""
        return max(0.0, self._end_s(self.steps) - self._progress_s)

    def pass_time(self, now_s: float, seconds: float, slowdown: float) -> None:
        """Works from `now_s` on for so many seconds, `slowdown` times as many as it would need alone."""
        if self.start_s is None:
            self.start_s = now_s
        reached_s = self._progress_s + seconds / slowdown
        rounded_s = reached_s + max(_ROUNDING_S, _ROUNDING_STEPS * math.ulp(now_s))
        while not self.done() and (end_s := self._end_s(len(self.ends_s) + 1)) <= rounded_s:
            self.ends_s.append(now_s + max(0.0, end_s - self._progress_s) * slowdown)
        self._progress_s = reached_s

    def finish(self, tokens: Tokens, heard: Heard | None) -> None:
        """Says what its rows drew."""
        for row in self.rows:
            tokens.write(row)
            if row.draw is not None:
                self._drawn[row.request_id] = tokens.draw(row, self.steps)
                if heard is not None:
                    heard(row, self.ends_s)

    def recall(self) -> None:
        """Ends with the step at work."""
        if not self.done():
            self.steps = len(self.ends_s) + 1

    def _end_s(self, steps: int) -> float:
        return steps * self._first_s + self._growth_s * (steps * (steps - 1) // 2)


class SimCut:
    """A pass between its layers."""

    def __init__(self, work: Pass, layers: int) -> None:
        self.work = work
        self.load = load_of(work.rows)
        self.layers = layers
        self.launched = 0
        self.last: SimEvent | None = None

    def drop(self) -> None:
        assert self.last is None or self.last.done(), "a pass is dropped while its layers run"


class SimLane:
    def __init__(self, device: SimDevice, name: str, sms: int) -> None:
        self.name = name
        self.sms = sms
        self.queued: deque[SimEvent] = deque()
        self._device = device

    def launch(self, work: Pass) -> SimEvent:
        device, load = self._device, load_of(work.rows)
        first_s = device.timing.pass_s(load, self.sms) + device.overhead_s
        growth_s = 0.0
        if work.steps > 1:
            ahead = load + Load.decode(0, load.decode_rows * (work.steps - 1))
            last_s = device.timing.pass_s(ahead, self.sms) + device.overhead_s
            growth_s = max(0.0, last_s - first_s) / (work.steps - 1)
        event = SimEvent(self, load, work.steps, first_s, growth_s, None)
        event.rows = work.rows
        device.enqueue(event)
        return event

    def launch_layers(self, cut: CutPass, stop: int) -> SimEvent:
        assert isinstance(cut, SimCut)
        assert cut.launched < stop <= cut.layers, (cut.launched, stop, cut.layers)
        whole_s = self._device.timing.pass_s(cut.load, self.sms)
        event = SimEvent(self, cut.load, 1, whole_s * (stop - cut.launched) / cut.layers, 0.0, after=cut.last)
        if stop == cut.layers:
            event.rows = cut.work.rows
        cut.launched, cut.last = stop, event
        self._device.enqueue(event)
        return event


class SimDevice:
    """Hardware of `sms` SMs with its `splits`, fewest decode SMs first, and a model of `layers` layers."""

    def __init__(
        self,
        clock: Sleeper,
        timing: Timing,
        tokens: Tokens,
        *,
        sms: int,
        splits: Sequence[wire.Split],
        layers: int,
        overhead_s: float = 0.0,
        lookahead_steps: int = 1,
        heard: Heard | None = None,
    ) -> None:
        """`overhead_s` is what a real node's loop adds to every pass; a clock that runs by itself adds its own."""
        self.clock = clock
        self.timing = timing
        self.overhead_s = overhead_s
        self.lookahead_steps = lookahead_steps
        self.splits: Sequence[wire.Split] = tuple(splits)
        self.sharing = wire.Sharing.SIMULATED if self.splits else wire.Sharing.NONE
        self.sharing_reason = "simulated"
        self.whole = SimLane(self, "whole", sms)
        self._tokens = tokens
        self._heard = heard
        self._layers = layers
        self._pairs = {
            split: (
                SimLane(self, f"decode-{split.decode_sms}", split.decode_sms),
                SimLane(self, f"prefill-{split.prefill_sms}", split.prefill_sms),
            )
            for split in self.splits
        }
        self._busy: list[SimLane] = []  # lanes with work
        self.ended = 0
        """Pieces of work so far."""
        self._now_s = clock.now_s()  # up to when the work was carried on
        self._paces: tuple[tuple[SimEvent, float], ...] | None = None  # who works, each with its slowdown

    def lanes(self, split: wire.Split) -> tuple[SimLane, SimLane]:
        return self._pairs[split]

    def cut(self, work: Pass) -> SimCut:
        return SimCut(work, self._layers)

    def recall(self, event: Event) -> None:
        assert isinstance(event, SimEvent)
        self._carry_on()
        event.recall()

    def wait(self, events: Sequence[Event], timeout_s: float) -> bool:
        deadline_s = self.clock.now_s() + timeout_s
        while True:
            self._carry_on()
            if any(event.done() for event in events):
                return True
            now_s = self.clock.now_s()
            self.clock.sleep_until(self.next_end_s(), deadline_s - now_s)
            self._carry_on()
            if any(event.done() for event in events):
                return True
            if (
                not now_s < self.clock.now_s() < deadline_s
            ):  # a virtual clock that may not go on yet stands still
                return False

    def release(self, request_id: str) -> None:
        """Nothing is kept per request."""

    def close(self) -> None:
        """There is nothing to end."""

    def under_way(self) -> Iterator[tuple[Row, Sequence[float]]]:
        """Rows of passes at work that draw, and when they drew what they have by now."""
        self._carry_on()
        for lane in self._busy:
            event = lane.queued[0]
            for row in event.rows:
                if row.draw is not None:
                    yield row, event.ends_s

    def next_end_s(self) -> float:
        """When the next piece of work will be done as things stand; infinity where nothing works."""
        return self._now_s + min(
            (event.left_s() * pace for event, pace in self._working()), default=float("inf")
        )

    def enqueue(self, event: SimEvent) -> None:
        self._carry_on()
        if not event.lane.queued:
            self._busy.append(event.lane)
        event.lane.queued.append(event)
        self._paces = None

    def _working(self) -> tuple[tuple[SimEvent, float], ...]:
        """The first of each lane that has not to wait for another lane, with its slowdown by the others."""
        if self._paces is None:
            events = [lane.queued[0] for lane in self._busy if lane.queued[0].ready()]
            self._paces = tuple((event, self._slowdown(event, events)) for event in events)
        return self._paces

    def _slowdown(self, event: SimEvent, events: list[SimEvent]) -> float:
        worst = 1.0
        for other in events:
            if other is not event:
                sms, other_sms = event.lane.sms, other.lane.sms
                worst = max(worst, self.timing.slowdown(event.load, sms, other.load, other_sms))
        return worst

    def _carry_on(self) -> None:
        """Does the work that fits between the last time and now."""
        to_s = self.clock.now_s()
        while working := self._working():
            next_s = self.next_end_s()
            stop_s = min(next_s, to_s)
            for event, pace in working:
                event.pass_time(self._now_s, max(0.0, stop_s - self._now_s), pace)
            self._now_s = stop_s
            if not self._collect(working):
                break
        self._now_s = max(self._now_s, to_s)

    def _collect(self, working: Sequence[tuple[SimEvent, float]]) -> bool:
        """Takes what is done off its lane; whether there was any."""
        done = [event for event, _ in working if event.done()]
        for event in done:
            event.lane.queued.popleft()
            if not event.lane.queued:
                self._busy.remove(event.lane)
            event.finish(self._tokens, self._heard)
        self.ended += len(done)
        if done:
            self._paces = None
        return bool(done)
