"""A core in virtual time: its device knows how long things take and computes nothing.

Requests are the core's own, and so are the planner, the queues and the pages. What its promises are is seen here by
the times at which answers are told; `sim_core` looks at what is said.
"""

from __future__ import annotations

from collections.abc import Sequence

from drift_engine import wire
from drift_engine.cache import KvCache
from drift_engine.clock import VirtualClock
from drift_engine.core.limits import CoreLimits
from drift_engine.core.loop import Core
from drift_engine.devices.sim import SimDevice
from drift_engine.devices.sim_tokens import CountedTokens
from drift_engine.latency import LatencyModel
from drift_engine.latency.costs import Prior
from drift_engine.latency.loads import Load

LAYERS = 8


class Unhindered:
    """What the latency model begins with is the truth; nothing is slower beside a neighbour."""

    def __init__(self, speeds: Prior) -> None:
        self._truth = LatencyModel(speeds)

    def pass_s(self, load: Load, sms: int) -> float:
        seconds = self._truth.pass_s(load, sms)
        assert seconds is not None
        return seconds

    def slowdown(self, load: Load, sms: int, neighbour: Load, neighbour_sms: int) -> float:
        return 1.0


def every_split(sms: int) -> tuple[wire.Split, ...]:
    """In two parts, and two lanes that share them all."""
    disjoint = [wire.Split(count, sms - count) for count in range(1, sms)]
    return (*disjoint, wire.Split(sms, sms))


class Arrivals:
    """A channel through which requests come at their times; the clock never passes one that has not come. Answers
    are kept as (time, output)."""

    def __init__(self, clock: VirtualClock, submits: Sequence[wire.Submit]) -> None:
        self._clock, self._coming = clock, sorted(submits, key=lambda s: s.arrival_s)
        self._cancelled: list[wire.ToCore] = []
        self.told: list[tuple[float, wire.Output]] = []
        self.ended = 0

    def cancel(self, request_id: str) -> None:
        self._cancelled.append(wire.Cancel(request_id))

    def receive(self, timeout_s: float) -> list[wire.ToCore]:
        if timeout_s and self._coming:  # the core has nothing to do
            self._clock.horizon_s = self._coming[0].arrival_s
            self._clock.sleep_until(self._coming[0].arrival_s, timeout_s)
        found, self._cancelled = self._cancelled, []
        while self._coming and self._coming[0].arrival_s <= self._clock.now_s():
            found.append(self._coming.pop(0))
        self._clock.horizon_s = self._coming[0].arrival_s if self._coming else float("inf")
        return found

    def send(self, message: wire.FromCore) -> None:
        if isinstance(message, wire.Step):
            self.told += [(self._clock.now_s(), output) for output in message.outputs]
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
        clock = VirtualClock()
        self.cache = KvCache(pages, 16)
        self.channel = Arrivals(clock, submits)
        self.submits = submits
        self.core = Core(
            SimDevice(
                clock,
                Unhindered(speeds),
                CountedTokens(),
                sms=sms,
                splits=every_split(sms),
                layers=LAYERS,
            ),
            self.cache,
            self.channel,
            None,
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
