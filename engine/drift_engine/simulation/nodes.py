"""One simulated node: a core that computes nothing, and the requests that it was given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

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
from drift_engine.timelines import Span

LOOKAHEAD_STEPS = 64
"""Decode steps that the planner lets pass without looking; by what contexts grow meanwhile, a step gets less than 1 %
longer."""

MOST_IDLE_TURNS = 100
"""A core with requests launches something within a few turns; one that does not would turn for ever."""

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
    """Runs as far as it is told to. `ended` hears of every answer that is complete."""

    def __init__(self, spec: NodeSpec, latency: Snapshot, ended: Callable[[Answer], None]) -> None:
        self.clock = VirtualClock()
        self.answers: dict[str, Answer] = {}
        self.waiting_tokens = 0
        """Prompt tokens of requests that have no token yet."""
        self.stats: wire.Stats | None = None
        self._undecided = False  # something ended since the core last planned
        self._times_s: dict[str, Sequence[float]] = {}  # of tokens that were drawn and not told yet
        self._ended = ended
        self._device = make_device(spec, self.clock, self._drawn)
        self._mailbox = _Mailbox(self._hear)
        model = LatencyModel()
        model.restore(latency)
        self.core = Core(
            self._device,
            KvCache(spec.kv_tokens // PAGE_TOKENS, PAGE_TOKENS, tell=False),
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

    @property
    def spans(self) -> Sequence[Span]:
        return self.core.spans

    @property
    def next_s(self) -> float:
        """When something happens next without anything from outside; infinity where nothing will."""
        if self._mailbox.inbox:
            return self.clock.now_s()
        return self._device.next_end_s()

    def submit(self, request_id: str, token_ids: list[int], output_tokens: int, at_s: float) -> None:
        """A request that arrives at `at_s`, up to when the node must have run: it may not know of it before."""
        if not self.answers:
            self.clock.horizon_s = at_s
            self.clock.sleep_until(at_s, 0.0)  # nothing happened meanwhile
        assert self.clock.now_s() >= at_s, f"a node at {self.clock.now_s()} hears of {at_s}"
        self.answers[request_id] = Answer(request_id, len(token_ids))
        self.waiting_tokens += len(token_ids)
        sampling = wire.Sampling(max_tokens=output_tokens, temperature=0.0, ignore_eos=True)
        self._mailbox.inbox.append(wire.Submit(request_id, token_ids, sampling, at_s))

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

    def _settled(self, until_s: float) -> bool:
        if self._mailbox.inbox or self._undecided or self.clock.now_s() < until_s:
            return False
        return until_s < self._device.next_end_s() < float("inf")

    def _drawn(self, row: Row, times_s: Sequence[float]) -> None:
        if len(times_s) > 1:  # of one step, the time is that at which it is told
            self._times_s[row.request_id] = times_s

    def _hear(self, message: wire.FromCore) -> None:
        if not isinstance(message, wire.Step):
            return
        self.stats = message.stats
        for output in message.outputs:
            answer = self.answers[output.request_id]
            answer.cached_tokens = max(answer.cached_tokens, output.cached_tokens)
            if not answer.token_times_s:
                self.waiting_tokens -= answer.prompt_tokens
            if output.token_ids:
                now_s = (self.clock.now_s(),)
                answer.token_times_s.extend(self._times_s.pop(output.request_id, now_s))
            if output.finish is not None:
                answer.finish, answer.error = output.finish, output.error
                del self.answers[output.request_id]
                self._ended(answer)


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
