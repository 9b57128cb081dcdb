"""A core in virtual time: its device knows how long things take and computes nothing.

Requests are the core's own, and so are the planner, the queues and the pages; every drawn token is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from drift_engine import wire
from drift_engine.cache import KvCache
from drift_engine.core.grammars import Grammars
from drift_engine.core.limits import CoreLimits
from drift_engine.core.loop import Core
from drift_engine.devices.base import CutPass, Drawn, Event, Pass, Results, load_of
from drift_engine.latency import LatencyModel
from drift_engine.latency.costs import Prior
from drift_engine.latency.loads import Load

LAYERS = 8


class Clock:
    def __init__(self) -> None:
        self.time_s = 0.0

    def now_s(self) -> float:
        return self.time_s


class VirtualEvent:
    def __init__(self, clock: Clock, start_s: float, seconds: float, work: Pass) -> None:
        self.ends_s = start_s + seconds
        drawn = {request_id: [Drawn(0)] for request_id in work.draws()}
        self._clock, self._results = clock, Results(drawn, start_s, seconds, seconds)

    def done(self) -> bool:
        return self._clock.time_s >= self.ends_s

    def results(self) -> Results:
        assert self.done(), "results of a pass that is still running"
        return self._results


class VirtualCut:
    layers = LAYERS

    def __init__(self, work: Pass) -> None:
        self.work, self.launched, self.free_s = work, 0, 0.0

    def drop(self) -> None:
        pass


class VirtualLane:
    def __init__(self, clock: Clock, latency: LatencyModel, name: str, sms: int) -> None:
        self._clock, self._latency, self._free_s = clock, latency, 0.0
        self.name, self.sms = name, sms

    def launch(self, work: Pass) -> VirtualEvent:
        load = load_of(work.rows)
        return self._run(load, 1.0, work, self._clock.time_s)

    def launch_layers(self, cut: CutPass, stop: int) -> VirtualEvent:
        assert isinstance(cut, VirtualCut)
        share = (stop - cut.launched) / LAYERS
        event = self._run(load_of(cut.work.rows), share, cut.work, max(self._clock.time_s, cut.free_s))
        cut.launched, cut.free_s = stop, event.ends_s
        return event

    def _run(self, load: Load, share: float, work: Pass, start_s: float) -> VirtualEvent:
        seconds = self._latency.pass_s(load, self.sms)
        assert seconds is not None
        event = VirtualEvent(self._clock, max(start_s, self._free_s), seconds * share, work)
        self._free_s = event.ends_s
        return event


class VirtualDevice:
    """`sms` SMs, every split of them, and two lanes that share them all; nothing is slower beside a neighbour."""

    lookahead_steps = 1
    sharing = wire.Sharing.SIMULATED
    sharing_reason = "a test"

    def __init__(self, clock: Clock, speeds: Prior, sms: int) -> None:
        truth = LatencyModel(speeds)
        self.clock = clock
        self.whole = VirtualLane(clock, truth, "whole", sms)
        disjoint = [wire.Split(count, sms - count) for count in range(1, sms)]
        self.splits: Sequence[wire.Split] = (*disjoint, wire.Split(sms, sms))
        self._lanes = {
            split: (
                VirtualLane(clock, truth, f"decode-{split.decode_sms}", split.decode_sms),
                VirtualLane(clock, truth, f"prefill-{split.prefill_sms}", split.prefill_sms),
            )
            for split in self.splits
        }

    def lanes(self, split: wire.Split) -> tuple[VirtualLane, VirtualLane]:
        return self._lanes[split]

    def recall(self, event: Event) -> None:
        pass

    def cut(self, work: Pass) -> VirtualCut:
        return VirtualCut(work)

    def wait(self, events: Sequence[Event], timeout_s: float) -> bool:
        ends_s = min(event.ends_s for event in events if isinstance(event, VirtualEvent))
        self.clock.time_s = max(self.clock.time_s, min(ends_s, self.clock.time_s + timeout_s))
        return any(event.done() for event in events)

    def release(self, request_id: str) -> None:
        pass

    def close(self) -> None:
        pass


class Arrivals:
    """A channel through which requests come at their times. Answers are kept as (time, output)."""

    def __init__(self, clock: Clock, submits: Sequence[wire.Submit]) -> None:
        self._clock, self._coming = clock, sorted(submits, key=lambda s: s.arrival_s)
        self._cancelled: list[wire.ToCore] = []
        self.told: list[tuple[float, wire.Output]] = []
        self.ended = 0

    def cancel(self, request_id: str) -> None:
        self._cancelled.append(wire.Cancel(request_id))

    def receive(self, timeout_s: float) -> list[wire.ToCore]:
        if timeout_s and self._coming:
            self._clock.time_s = max(self._clock.time_s, self._coming[0].arrival_s)
        found, self._cancelled = self._cancelled, []
        while self._coming and self._coming[0].arrival_s <= self._clock.time_s:
            found.append(self._coming.pop(0))
        return found

    def send(self, message: wire.FromCore) -> None:
        if isinstance(message, wire.Step):
            self.told += [(self._clock.time_s, output) for output in message.outputs]
            self.ended += sum(output.finish is not None for output in message.outputs)

    def flush(self) -> None:
        pass


class VirtualCore:
    def __init__(
        self,
        submits: Sequence[wire.Submit],
        mode: wire.Mode,
        speeds: Prior,
        *,
        sms: int = 4,
        pages: int = 4096,
        max_running: int = 64,
        max_step_tokens: int = 2048,
        slack: wire.Slack = wire.Slack.STRICT,
        targets: wire.Targets | None = None,
    ) -> None:
        clock = Clock()
        self.cache = KvCache(pages, 16)
        self.channel = Arrivals(clock, submits)
        self.submits = submits
        self.core = Core(
            VirtualDevice(clock, speeds, sms),
            self.cache,
            self.channel,
            cast("Grammars", None),
            mode,
            CoreLimits(
                max_running=max_running,
                max_model_len_tokens=pages * 16,
                max_step_tokens=max_step_tokens,
                chunk_tokens=None,
                eos_token_ids=frozenset(),
                layers=LAYERS,
                kept_spans=100_000,
                slack=slack,
                min_dwell_s=0.1,
            ),
            targets or wire.Targets(400.0, 0.0, 80.0),
            LatencyModel(speeds),
        )

    def run(self, *, max_steps: int = 100_000) -> dict[str, list[float]]:
        """The times of each request's tokens; fails the test when the requests do not end."""
        for _ in range(max_steps):
            if self.channel.ended == len(self.submits):
                break
            self.core.step()
        else:
            raise AssertionError(
                f"{self.channel.ended} of {len(self.submits)} requests ended within {max_steps} steps"
            )
        times: dict[str, list[float]] = {submit.request_id: [] for submit in self.submits}
        for time_s, output in self.channel.told:
            times[output.request_id] += [time_s] * len(output.token_ids)
        return times

    def admitted_s(self) -> dict[str, float]:
        """When each request was admitted first."""
        arrival_s = {submit.request_id: submit.arrival_s for submit in self.submits}
        found: dict[str, float] = {}
        for _, output in self.channel.told:
            if output.request_id not in found:
                found[output.request_id] = arrival_s[output.request_id] + output.queued_s
        return found
