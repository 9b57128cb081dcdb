"""A device of several lanes whose work runs when the test's dice say so, in any order that the seam allows.

It computes with a real runner and checks what the core may ask: nothing beside a pass on the whole device, no request
on two lanes at once, nothing released that a lane still works on.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from drift_engine import wire
from drift_engine.devices.base import Clock, CutPass, Draw, Drawn, Event, Pass, Results, Row
from drift_engine.devices.runner import LayeredPass, Runner
from drift_engine.latency.accuracy import Errors
from drift_engine.latency.loads import Load


class DiceClock:
    def __init__(self) -> None:
        self.time_s = 1000.0

    def now_s(self) -> float:
        return self.time_s


class ShuffledEvent:
    def __init__(self, lane: ShuffledLane, work: Pass, run: Callable[[], Results]) -> None:
        self.lane = lane
        self.work = work
        self.run = run
        self.steps = work.steps
        self.after: ShuffledEvent | None = None
        self.found: Results | None = None

    def done(self) -> bool:
        return self.found is not None

    def results(self) -> Results:
        assert self.found is not None, "results of a pass that is still running"
        return self.found


class ShuffledCut:
    def __init__(self, work: Pass, layered: LayeredPass) -> None:
        self.work = work
        self.layered = layered
        self.layers = layered.layers
        self.launched = 0
        self.last: ShuffledEvent | None = None

    def drop(self) -> None:
        assert self.last is None or self.last.done()


class ShuffledLane:
    def __init__(self, device: ShuffledDevice, name: str, sms: int) -> None:
        self._device = device
        self.name = name
        self.sms = sms

    def launch(self, work: Pass) -> ShuffledEvent:
        event = ShuffledEvent(self, work, lambda: self._steps(work, event.steps))
        for other in self._device.queued:
            assert self is not self._device.whole, f"a pass on the whole device beside {other.lane.name}"
            assert other.lane is not self._device.whole, "a pass beside one on the whole device"
            assert not ids(other.work) & ids(work), "a request on two lanes"
        self._device.queued.append(event)
        return event

    def launch_layers(self, cut: CutPass, stop: int) -> ShuffledEvent:
        assert isinstance(cut, ShuffledCut)
        assert cut.launched < stop <= cut.layers
        event = ShuffledEvent(self, cut.work, lambda: cut.layered.advance(stop, lane_sms=self.sms))
        for other in self._device.queued:
            if other.work is not cut.work:
                assert self is not self._device.whole, f"layers on the whole device beside {other.lane.name}"
                assert other.lane is not self._device.whole, "layers beside a pass on the whole device"
                assert not ids(other.work) & ids(cut.work), "a request on two lanes"
        event.after, cut.last, cut.launched = cut.last, event, stop
        self._device.queued.append(event)
        return event

    def _steps(self, work: Pass, steps: int) -> Results:
        """One pass after the other, each row going on with the token that it drew."""
        drawn: dict[str, list[Drawn]] = {request_id: [] for request_id in work.draws()}
        while True:
            layered = LayeredPass(self._device.runner, work)
            results = layered.advance(layered.layers, lane_sms=self.sms)
            for request_id, (one,) in results.drawn.items():
                drawn[request_id].append(one)
            steps -= 1
            if not steps:
                return replace(results, drawn=drawn)
            work = Pass(tuple(_next(row, drawn[row.request_id][-1]) for row in work.decode), ())


class ShuffledDevice:
    """`sms` SMs, every split of them, and two lanes that share them all."""

    def __init__(
        self, runner: Runner, clock: Clock, dice: random.Random, *, sms: int = 4, lookahead_steps: int = 1
    ) -> None:
        assert isinstance(clock, DiceClock)
        self.clock = clock
        self.runner = runner
        self.queued: list[ShuffledEvent] = []
        self._dice = dice
        self.lookahead_steps = lookahead_steps
        disjoint = [wire.Split(count, sms - count) for count in range(1, sms)]
        self.splits: Sequence[wire.Split] = (*disjoint, wire.Split(sms, sms))
        self.sharing = wire.Sharing.CORES
        self.sharing_reason = "the test's dice"
        self.whole = ShuffledLane(self, "whole", sms)
        self._lanes = {
            split: (
                ShuffledLane(self, f"decode-{split.decode_sms}", split.decode_sms),
                ShuffledLane(self, f"prefill-{split.prefill_sms}", split.prefill_sms),
            )
            for split in self.splits
        }
        self.used: set[wire.Split] = set()
        self.together = 0
        """How often two lanes had work at the same time."""

    def lanes(self, split: wire.Split) -> tuple[ShuffledLane, ShuffledLane]:
        self.used.add(split)
        return self._lanes[split]

    def recall(self, event: Event) -> None:
        assert isinstance(event, ShuffledEvent)
        if not event.done():
            event.steps = self._dice.randint(1, event.steps)

    def cut(self, work: Pass) -> ShuffledCut:
        return ShuffledCut(work, LayeredPass(self.runner, work))

    def wait(self, events: Sequence[Event], timeout_s: float) -> bool:
        """Time passes, and sometimes a piece of work ends: the first of its lane whose earlier layers are done."""
        self.clock.time_s += self._dice.choice([0.0, 0.001, timeout_s])
        self.together += len({event.lane.name for event in self.queued}) > 1
        lanes: set[str] = set()
        ready = []
        for event in self.queued:
            if event.lane.name not in lanes and (event.after is None or event.after.done()):
                ready.append(event)
            lanes.add(event.lane.name)
        if ready and self._dice.random() < 0.8:
            chosen = self._dice.choice(ready)
            self.queued.remove(chosen)
            chosen.found = chosen.run()
        return any(event.done() for event in events)

    def release(self, request_id: str) -> None:
        assert not any(request_id in ids(event.work) for event in self.queued), "released while a lane works"
        self.runner.release(request_id)

    def close(self) -> None:
        assert not self.queued, "closed with work in flight"


class Erratic:
    """A latency model that throws dice: every split, mode and number of layers comes up."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice

    def pass_s(self, load: Load, sms: int) -> float | None:
        return self._dice.choice([None, 0.0001, 0.01, 0.05, 0.2])

    def beside_s(self, load: Load, sms: int, neighbour: Load) -> float | None:
        return self.pass_s(load, sms)

    @property
    def fused_factor(self) -> float:
        return self._dice.choice([1.0, 1.2, 1.5])

    def observe(self, load: Load, sms: int, seconds: float, neighbour: Load | None, now_s: float) -> None:
        assert seconds >= 0

    def prefill_tokens_per_s(self, sms: int, chunk_tokens: int = 512) -> float:
        return 1.0

    def split_cost(self, decode_sms: int, prefill_sms: int) -> wire.SplitCost | None:
        return None

    def errors(self) -> Errors:
        return Errors(0.0, 0.0, 0.0, 0.0, 0, 0, 0, 0)


def _next(row: Row, drawn: Drawn) -> Row:
    draw = row.draw
    assert draw is not None
    history = [*draw.history, drawn.token_id]
    ahead = Draw(draw.sampling, history, draw.prompt_tokens, draw.banned, draw.bitmask)
    return Row(row.request_id, [drawn.token_id], row.start + 1, row.pages, ahead)


def ids(work: Pass) -> set[str]:
    return {row.request_id for row in work.rows}
