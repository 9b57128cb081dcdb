"""One simulated node: a core that computes nothing, and the requests that it was given."""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from drift_engine import wire
from drift_engine.cache import KvCache
from drift_engine.clock import VirtualClock
from drift_engine.core import calibrating, learned
from drift_engine.core.limits import CoreLimits
from drift_engine.core.loop import Core
from drift_engine.core.resolving import MAX_STEP_TOKENS
from drift_engine.devices.base import Row
from drift_engine.devices.sim import SimDevice, Timing
from drift_engine.devices.sim_tokens import CountedTokens
from drift_engine.errors import EngineError
from drift_engine.latency import LatencyModel
from drift_engine.latency.snapshots import Snapshot
from drift_engine.launches import Span

LOOKAHEAD_STEPS = 64
"""Decode steps that the planner lets pass without looking; by what contexts grow meanwhile, a step gets less than 1 %
longer."""

MOST_IDLE_TURNS = 100
"""A core with requests launches something within a few turns; one that does not would turn for ever."""

MOST_IN_FLIGHT = 1 << 20
"""Simulated nodes refuse nobody."""

RECENT_GAPS = 2048
"""Behind a report's quantiles, as many as at a node's API."""

PAGE_TOKENS = 64
"""Traces say what is shared in blocks of 512 tokens; smaller pages cost time and change nothing."""


class NodeSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What all nodes of a simulation are."""

    timing: Timing
    sms: int
    splits: tuple[wire.Split, ...]
    layers: int
    pairs_share: float
    """Arithmetic of a pair of tokens in attention, in that of a token in all else; for calibration."""
    kv_tokens: int
    max_model_len_tokens: int
    mode: wire.Mode
    targets: wire.Targets
    max_running: int
    max_step_tokens: int = MAX_STEP_TOKENS["sim"]
    chunk_tokens: int | None = None
    overhead_s: float
    slack: wire.Slack = wire.Slack.STRICT
    min_dwell_s: float = 0.1
    batch_table_context_tokens: int = 1024
    kept_spans: int = 0


@dataclass(slots=True)
class Answer:
    """Of one request, while and after it runs. Times are of the simulation."""

    request_id: str
    prompt_tokens: int
    token_times_s: list[float] = field(default_factory=list)
    cached_tokens: int = 0
    finish: wire.FinishReason | None = None
    error: str | None = None


class Told(Protocol):
    """Who hears of a node. Called as the node goes on, so up to its own time."""

    def told(self, answer: Answer, times_s: Sequence[float]) -> None:
        """New tokens of a request."""

    def ended(self, answer: Answer) -> None:
        """It is complete; after its last tokens were told."""

    def kept(self, index: int, events: Sequence[wire.KvEvent]) -> None:
        """Changes of the prefix cache of a node that tells."""


class _Mailbox:
    """A channel without another end: what the core says goes to the node at once."""

    def __init__(self, heard: Callable[[wire.FromCore], None]) -> None:
        self.inbox: list[wire.ToCore] = []
        self._heard = heard

    def send(self, message: wire.FromCore) -> None:
        self._heard(message)

    def flush(self) -> None:
        """Nothing waits."""

    def receive(self, timeout_s: float) -> list[wire.ToCore]:
        taken, self.inbox = self.inbox, []
        return taken


class SimulatedNode:
    """Runs as far as it is told to, from `made_s` on."""

    def __init__(
        self,
        spec: NodeSpec,
        latency: Snapshot,
        listener: Told,
        *,
        index: int = 0,
        made_s: float = 0.0,
        tell: bool = False,
    ) -> None:
        """`tell`: what its prefix cache holds."""
        self.index = index
        self.made_s = made_s
        self.clock = VirtualClock()
        self.clock.sleep_until(made_s, 0.0)
        self.clock.horizon_s = made_s
        self.answers: dict[str, Answer] = {}
        self.waiting_tokens = 0
        """Prompt tokens of requests that have no token here yet."""
        self.draining = False
        self.stats: wire.Stats | None = None
        self._spec = spec
        self._costs = wire.Costs((), None)
        self._point: wire.SetBounds | None = None
        self._generation = 0
        self._weight = 1.0
        self._ranged = False  # the set-point says which splits
        self._gaps_s: deque[float] = deque(maxlen=RECENT_GAPS)
        self._tbt_ms = (0.0, 0.0)  # P50 and P99 of the gaps, as far as they were told
        self._stale = False
        self._undecided = False  # something ended since the core last planned
        self._times_s: dict[str, Sequence[float]] = {}  # of tokens that were drawn and not told yet
        self._waiting: set[str] = set()
        self._listener = listener
        self._device = make_device(spec, self.clock, self._drawn)
        self._mailbox = _Mailbox(self._hear)
        self._cache = KvCache(spec.kv_tokens // PAGE_TOKENS, PAGE_TOKENS, tell=tell)
        model = LatencyModel()
        model.restore(latency)
        self.core = Core(
            self._device,
            self._cache,
            self._mailbox,
            None,
            spec.mode,
            CoreLimits(
                max_running=spec.max_running,
                max_model_len_tokens=spec.max_model_len_tokens,
                max_step_tokens=spec.max_step_tokens,
                chunk_tokens=spec.chunk_tokens,
                eos_token_ids=frozenset(),
                layers=spec.layers,
                kept_spans=spec.kept_spans,
                slack=spec.slack,
                min_dwell_s=spec.min_dwell_s,
                batch_table_context_tokens=spec.batch_table_context_tokens,
            ),
            spec.targets,
            model,
        )
        self.core.step()  # an idle core tells its costs at once

    @property
    def spans(self) -> Sequence[Span]:
        return self.core.spans

    @property
    def next_s(self) -> float:
        """When something happens next without anything from outside; infinity where nothing will."""
        if self._mailbox.inbox:
            return self.clock.now_s()
        return self._device.next_end_s()

    def report(self, now_s: float) -> wire.Report:
        """As of the last step that ended; `now_s` is not before that."""
        spec, stats = self._spec, self.stats
        point = self._point if self._point is not None and now_s < self._point.until_s else None
        if self._stale:
            gaps_s = sorted(self._gaps_s)
            self._tbt_ms = (1000 * gaps_s[len(gaps_s) // 2], 1000 * gaps_s[int(0.99 * len(gaps_s))])
            self._stale = False
        return wire.Report(
            node=name(self.index),
            model="simulated",
            role=wire.Role.MIXED,
            mode=spec.mode,
            ready=True,
            draining=self.draining,
            in_flight=len(self.answers),
            max_in_flight=MOST_IN_FLIGHT,
            running=stats.running if stats else 0,
            waiting=stats.waiting if stats else 0,
            queued_tokens=stats.queued_tokens if stats else 0,
            kv_usage=self._cache.pages_held / self._cache.pages_total,
            kv_pages_total=self._cache.pages_total,
            page_tokens=PAGE_TOKENS,
            max_model_len_tokens=spec.max_model_len_tokens,
            legal_splits=spec.splits,
            split=stats.split if stats else None,
            epoch=point.epoch if point else 0,
            generation=self._generation if point else 0,
            applied=point is not None,
            weight=self._weight if point else 1.0,
            slo=spec.targets,
            prefill_tokens_per_s=stats.prefill_tokens_per_s if stats else 0.0,
            tbt_p50_ms=self._tbt_ms[0],
            tbt_p99_ms=self._tbt_ms[1],
            tbt_per_request_ms=1000 * stats.tbt_per_request_s if stats else 0.0,
            kv_events_sequence=0,
            uptime_s=now_s - self.made_s,
            prompt_tokens_total=stats.prompt_tokens_total if stats else 0,
            cached_tokens_total=stats.cached_tokens_total if stats else 0,
            costs=self._costs.splits,
            whole=self._costs.whole,
            decode_context_tokens=stats.decode_context_tokens if stats else 0,
            max_running=spec.max_running,
            bounds=(point.decode_sms_min, point.decode_sms_max) if point and self._ranged else None,
            ahead=stats.ahead if stats else (),
        )

    def steer(
        self,
        *,
        epoch: int,
        generation: int,
        bounds: tuple[int, int] | None,
        weight: float,
        until_s: float,
    ) -> None:
        """A set-point: fewest and most decode SMs (None: as it likes) and its share of new requests. Older epochs
        than the last are not taken."""
        if self._point is not None and epoch < self._point.epoch:
            return
        fewest, most = bounds or (1, max((split.decode_sms for split in self._spec.splits), default=1))
        self._point = wire.SetBounds(epoch, fewest, most, until_s)
        self._generation, self._weight, self._ranged = generation, weight, bounds is not None
        if self._spec.splits:
            inbox = [message for message in self._mailbox.inbox if not isinstance(message, wire.SetBounds)]
            self._mailbox.inbox = [*inbox, self._point]

    def submit(
        self,
        request_id: str,
        token_ids: list[int],
        output_tokens: int,
        at_s: float,
        *,
        drawn_tokens: int = 0,
        handed_on: bool = False,
    ) -> None:
        """A request that arrives at `at_s`, up to when the node must have run: it may not know of it before.

        It goes on behind `drawn_tokens` of its `output_tokens`. `handed_on`: its prompt's KV came along; what is
        not a full page of it is computed again, and all of it where the cache has no room.
        """
        if not self.answers:
            self.clock.horizon_s = at_s
            self.clock.sleep_until(at_s, 0.0)  # nothing happened meanwhile
        assert self.clock.now_s() >= at_s, f"a node at {self.clock.now_s()} hears of {at_s}"
        if handed_on:
            self._hold(token_ids)
        self.answers[request_id] = Answer(request_id, len(token_ids))
        self.waiting_tokens += len(token_ids)
        self._waiting.add(request_id)
        sampling = wire.Sampling(max_tokens=output_tokens, temperature=0.0, ignore_eos=True)
        drawn = [0] * drawn_tokens
        self._mailbox.inbox.append(wire.Submit(request_id, token_ids, sampling, at_s, drawn_token_ids=drawn))

    def run(self, until_s: float) -> None:
        """What happens up to `until_s`, and what is decided then. A node with requests has its clock there."""
        self.clock.horizon_s = until_s
        idle_turns = 0
        while self.answers and not self._settled(until_s):
            before_s, ended = self.clock.now_s(), self._device.ended
            self.core.step()
            self._undecided = self._device.ended != ended
            idle = self._device.next_end_s() == float("inf") and self.clock.now_s() == before_s
            idle_turns = idle_turns + 1 if idle else 0
            if idle_turns > MOST_IDLE_TURNS:
                raise EngineError(f"a simulated node does nothing about its {len(self.answers)} requests")

    def break_off(self) -> list[Answer]:
        """It is gone now; its requests, with the tokens that they had been told."""
        for row, times_s in self._device.under_way():
            if (answer := self.answers.get(row.request_id)) is not None and times_s:
                answer.token_times_s.extend(times_s)
                self._listener.told(answer, times_s)
        broken = list(self.answers.values())
        self.answers.clear()
        return broken

    def _hold(self, token_ids: Sequence[int]) -> None:
        sequence = self._cache.open(token_ids, "")
        if self._cache.can_reserve(sequence, len(token_ids)):
            self._cache.reserve(sequence, len(token_ids))
            self._cache.publish(sequence, token_ids, len(token_ids))
        self._cache.close(sequence)

    def _settled(self, until_s: float) -> bool:
        if self._mailbox.inbox or self._undecided or self.clock.now_s() < until_s:
            return False
        return until_s < self._device.next_end_s() < float("inf")

    def _drawn(self, row: Row, times_s: Sequence[float]) -> None:
        if len(times_s) > 1:  # of one step, the time is that at which it is told
            self._times_s[row.request_id] = times_s

    def _hear(self, message: wire.FromCore) -> None:
        if isinstance(message, wire.Step):
            self.stats = message.stats
            for output in message.outputs:
                self._output(output)
        elif isinstance(message, wire.Costs):
            self._costs = message
        elif isinstance(message, wire.KvEvents):
            self._listener.kept(self.index, message.events)

    def _output(self, output: wire.Output) -> None:
        answer = self.answers.get(output.request_id)
        assert answer is not None, "an output of nobody's request"
        answer.cached_tokens = max(answer.cached_tokens, output.cached_tokens)
        if output.request_id in self._waiting:
            self.waiting_tokens -= answer.prompt_tokens
            self._waiting.discard(output.request_id)
        if output.token_ids:
            times_s = self._times_s.pop(output.request_id, (self.clock.now_s(),))
            if answer.token_times_s:
                before = (answer.token_times_s[-1], *times_s)
                self._gaps_s.extend(map(operator.sub, times_s, before))
                self._stale = True
            answer.token_times_s.extend(times_s)
            self._listener.told(answer, times_s)
        if output.finish is not None:
            answer.finish, answer.error = output.finish, output.error
            del self.answers[output.request_id]
            self._listener.ended(answer)


def name(index: int) -> str:
    return f"node-{index}"


def make_device(
    spec: NodeSpec,
    clock: VirtualClock,
    heard: Callable[[Row, Sequence[float]], None] | None = None,
) -> SimDevice:
    return SimDevice(
        clock,
        spec.timing,
        CountedTokens(),
        sms=spec.sms,
        splits=spec.splits,
        layers=spec.layers,
        overhead_s=spec.overhead_s,
        lookahead_steps=LOOKAHEAD_STEPS,
        heard=heard,
    )


def calibrated(spec: NodeSpec) -> Snapshot:
    """What a node of this kind learns at its start: measured on its device, like a real one."""
    return learned.calibrate(
        make_device(spec, VirtualClock()),
        calibrating.Bounds(
            kv_tokens=spec.kv_tokens,
            page_tokens=PAGE_TOKENS,
            max_context_tokens=spec.max_model_len_tokens,
            max_rows=spec.max_running,
            max_step_tokens=spec.max_step_tokens,
            budget_s=calibrating.BUDGET_S["cuda"],
        ),
        spec.pairs_share,
    ).snapshot()
