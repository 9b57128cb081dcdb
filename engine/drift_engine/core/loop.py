"""The core's step: take messages, plan, launch, poll, merge, emit.

Decisions are in `scheduling.planner`, computing is behind `devices.base.Device`, pages are `cache.KvCache`'s. The
loop only carries out: it may be read as the list of what happens to a request, in order.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from msgspec.structs import replace

from drift_engine import wire
from drift_engine.cache import KvCache, OutOfPages
from drift_engine.core.channel import Messages
from drift_engine.core.grammars import GrammarError, Grammars
from drift_engine.core.queues import Queues
from drift_engine.core.requests import Request
from drift_engine.devices.base import Device, Event, Pass, Results, Row
from drift_engine.errors import DeviceError
from drift_engine.scheduling import planner, plans, views
from drift_engine.scheduling.latency import MeasuredRates

log = logging.getLogger(__name__)

IDLE_WAIT_S = 0.5
"""An idle core looks this often whether its node still lives."""

HEARTBEAT_S = 1.0
"""A core without news says so this often; a node whose core is silent for long ends."""

PASS_LIMIT_S = 600.0
"""A pass that takes longer hangs. The longest honest one: 2,048 prompt tokens of an 8B model on 2 CPU cores, which at
the 0.2 TFLOP/s measured there takes about 3 minutes."""

POLL_WAIT_S = 0.02
"""A busy core reads messages this often while a pass runs; the end of the pass wakes it at once."""


@dataclass(frozen=True, slots=True)
class CoreLimits:
    """What a request and a step may have."""

    max_running: int
    max_model_len_tokens: int
    max_step_tokens: int
    chunk_tokens: int | None
    tbt_target_s: float
    eos_token_ids: frozenset[int]


@dataclass(frozen=True, slots=True)
class InFlight:
    """A launched pass; `advances` tells how many tokens of each request it computes."""

    event: Event
    advances: dict[str, int]
    decode_rows: int
    prefill_tokens: int
    launched_s: float


class Core:
    """One model on one device. Single-threaded: whoever calls `step` owns it."""

    def __init__(
        self,
        device: Device,
        cache: KvCache,
        channel: Messages,
        grammars: Grammars,
        mode: wire.Mode,
        limits: CoreLimits,
    ) -> None:
        self._device = device
        self._cache = cache
        self._channel = channel
        self._grammars = grammars
        self._mode = mode
        self._limits = limits
        self._latency = MeasuredRates()
        self._queues = Queues()
        self._in_flight: InFlight | None = None
        self._spent_s = 0.0  # on the pass in flight
        self._outputs: list[wire.Output] = []
        self._events_sequence = 1  # 0 means: before the first
        self._changed = False
        self._unchecked = False
        self._told_s = 0.0
        self._stats = wire.Stats(0.0, 0, 0, 0, 0, 0, cache.pages_total)
        self.stopping = False

    def step(self) -> None:
        """One turn. Returns within IDLE_WAIT_S, or POLL_WAIT_S while a pass runs."""
        busy = self._in_flight is not None or len(self._queues) > 0
        self._take(self._channel.receive(0.0 if busy else IDLE_WAIT_S))
        start_s = self._device.clock.now_s()
        if self._in_flight is None:
            self._in_flight = self._launch(self._plan())
            if self._in_flight is None and self._queues.running:
                self._preempt(self._latest())
        results = self._poll()
        if results is not None:
            self._merge(results)
        self._emit()
        self._account(results, self._device.clock.now_s() - start_s)
        if not busy:
            self._check_books()

    # take -------------------------------------------------------------------------------------------------

    def _take(self, messages: list[wire.ToCore]) -> None:
        for message in messages:
            match message:
                case wire.Submit():
                    self._submit(message)
                case wire.Cancel(request_id):
                    self._cancel(request_id)
                case wire.FlushCache():
                    self._cache.flush()
                    self._changed = True
                case wire.Shutdown():
                    self.stopping = True

    def _submit(self, message: wire.Submit) -> None:
        limits = self._limits
        if not 0 < len(message.token_ids) < limits.max_model_len_tokens:
            self._refuse(
                message,
                f"the prompt has {len(message.token_ids)} tokens; this node takes 1 to "
                f"{limits.max_model_len_tokens - 1}",
            )
            return
        matcher = None
        if message.sampling.grammar is not None:
            try:
                matcher = self._grammars.matcher(message.sampling.grammar)
            except GrammarError as error:
                self._refuse(message, f"grammar: {error}")
                return
        target_ms = message.slo.tbt_ms
        self._queues.enqueue(
            Request(
                message,
                limits.tbt_target_s if target_ms is None else target_ms / 1e3,
                limits.eos_token_ids,
                matcher,
            )
        )
        self._changed = True

    def _refuse(self, message: wire.Submit, error: str) -> None:
        self._outputs.append(
            wire.Output(message.request_id, [], finish=wire.FinishReason.ABORTED, error=error)
        )

    def _cancel(self, request_id: str) -> None:
        request = self._queues.find(request_id)
        if request is None:
            return
        if self._in_flight is not None and request_id in self._in_flight.advances:
            request.cancelled = True  # its pages are written to until the pass ends
        else:
            self._finish(request)
        self._changed = True

    # plan and launch --------------------------------------------------------------------------------------

    def _plan(self) -> plans.Plan:
        if not len(self._queues):
            return plans.Plan(self._mode)
        limits, cache = self._limits, self._cache
        state = views.State(
            waiting=tuple(
                self._queues.candidates(
                    limits.max_running - len(self._queues.running),
                    limits.max_step_tokens,
                    cache.pages_free + cache.pages_evictable,
                    lambda r: cache.match(r.tokens, r.submit.salt),
                )
            ),
            running=tuple(request.running_view() for request in self._queues.running.values()),
            memory=views.Memory(
                cache.page_tokens, cache.pages_total, cache.pages_free, cache.pages_evictable
            ),
            limits=views.Limits(limits.max_running, limits.chunk_tokens, limits.max_step_tokens),
        )
        return planner.plan(self._mode, state, self._latency, self._device.clock.now_s())

    def _launch(self, plan: plans.Plan) -> InFlight | None:
        for request_id in plan.preempt:
            self._preempt(self._queues.running[request_id])
        for request_id in plan.admit:
            self._admit(self._queues.admit(request_id))
        decode = self._rows([(request_id, 1) for request_id in plan.decode])
        prefill = self._rows([(chunk.request_id, chunk.tokens) for chunk in plan.prefill])
        if not (decode or prefill):
            return None
        return InFlight(
            self._device.lanes[0].launch(Pass(decode, prefill)),
            {row.request_id: len(row.token_ids) for row in decode + prefill},
            len(decode),
            sum(len(row.token_ids) for row in prefill),
            self._device.clock.now_s(),
        )

    def _admit(self, request: Request) -> None:
        request.sequence = self._cache.open(request.tokens, request.submit.salt)
        request.computed = request.sequence.cached_tokens
        if request.first_cached_tokens is None:  # a resume reuses what the request itself has computed
            request.first_cached_tokens = request.computed
            request.queued_s = max(0.0, self._device.clock.now_s() - request.submit.arrival_s)
            self._stats = replace(
                self._stats,
                prompt_tokens_total=self._stats.prompt_tokens_total + request.prompt_tokens,
                cached_tokens_total=self._stats.cached_tokens_total + request.computed,
            )

    def _preempt(self, request: Request) -> None:
        """Back to its place in the line; its written pages stay cached for as long as nobody needs them."""
        self._queues.remove(request)
        self._give_back(request)
        self._queues.enqueue(request)
        self._stats = replace(self._stats, preemptions_total=self._stats.preemptions_total + 1)

    def _latest(self) -> Request:
        """Whom to preempt when no running request could move: shared pages were counted twice."""
        return max(self._queues.running.values(), key=lambda r: (-r.submit.priority, r.submit.arrival_s))

    def _rows(self, wanted: list[tuple[str, int]]) -> tuple[Row, ...]:
        rows = []
        for request_id, tokens in wanted:
            request = self._queues.running[request_id]
            assert request.sequence is not None
            stop = min(request.computed + tokens, len(request.tokens))
            try:
                self._cache.reserve(request.sequence, stop)
            except OutOfPages:  # shared pages counted as evictable were taken: it waits for the next step
                continue
            rows.append(
                Row(
                    request_id,
                    request.tokens[request.computed : stop],
                    request.computed,
                    request.sequence.pages,
                    request.draw() if stop == len(request.tokens) else None,
                )
            )
        return tuple(rows)

    # poll, merge, emit ------------------------------------------------------------------------------------

    def _poll(self) -> Results | None:
        """The results of the pass in flight once it is done. Raises DeviceError for a pass that hangs."""
        pass_ = self._in_flight
        if pass_ is None:
            return None
        if pass_.event.wait(POLL_WAIT_S):
            return pass_.event.results()
        if self._device.clock.now_s() - pass_.launched_s > PASS_LIMIT_S:
            raise DeviceError(
                f"a pass of {pass_.decode_rows} decode rows and {pass_.prefill_tokens} prefill tokens has not "
                f"ended after {PASS_LIMIT_S:g} s: the device hangs"
            )
        return None

    def _merge(self, results: Results) -> None:
        """Books what the pass computed: pages become shareable, requests get their token or end."""
        pass_ = self._in_flight
        assert pass_ is not None
        self._in_flight = None
        self._latency.observe(
            prefill_tokens=pass_.prefill_tokens, decode_rows=pass_.decode_rows, seconds=results.pass_s
        )
        computed_prompt = 0
        for request_id, tokens in pass_.advances.items():
            request = self._queues.running[request_id]
            assert request.sequence is not None
            computed_prompt += max(0, min(tokens, request.prompt_tokens - request.computed))
            request.computed += tokens
            self._cache.publish(request.sequence, request.tokens, request.computed)
            if request.cancelled:
                self._finish(request)
            elif request_id in results.drawn:
                self._take_token(request, results)
        self._stats = replace(
            self._stats,
            steps_total=self._stats.steps_total + 1,
            computed_prompt_tokens_total=self._stats.computed_prompt_tokens_total + computed_prompt,
            generation_tokens_total=self._stats.generation_tokens_total + len(results.drawn),
            forward_s_total=self._stats.forward_s_total + results.forward_s,
        )
        self._changed = True

    def _take_token(self, request: Request, results: Results) -> None:
        drawn = results.drawn[request.request_id]
        error = None
        try:
            finish, stop_token = request.take(drawn, self._limits.max_model_len_tokens)
        except GrammarError as grammar_error:
            finish, stop_token, error = wire.FinishReason.ABORTED, None, str(grammar_error)
        first = request.drawn_tokens == 1
        self._outputs.append(
            wire.Output(
                request.request_id,
                [drawn.token_id],
                [drawn.logprobs] if drawn.logprobs is not None else None,
                finish,
                stop_token,
                request.first_cached_tokens or 0 if first else 0,
                error,
                request.queued_s if first else 0.0,
            )
        )
        if finish is not None:
            self._finish(request)

    def _finish(self, request: Request) -> None:
        self._queues.remove(request)
        self._give_back(request)
        self._unchecked = True

    def _give_back(self, request: Request) -> None:
        if request.sequence is not None:
            self._cache.close(request.sequence)
            request.sequence = None
            request.computed = 0
            self._device.release(request.request_id)

    def _emit(self) -> None:
        events = self._cache.take_events()
        if events:
            self._channel.send(wire.KvEvents(self._events_sequence, events))
            self._events_sequence += len(events)
        now_s = self._device.clock.now_s()
        if self._outputs or self._changed or now_s - self._told_s >= HEARTBEAT_S:
            self._told_s = now_s
            self._channel.send(wire.Step(self._outputs, self._snapshot()))
            self._outputs = []
            self._changed = False
        else:
            self._channel.flush()

    # books ------------------------------------------------------------------------------------------------

    def _snapshot(self) -> wire.Stats:
        cache = self._cache
        return replace(
            self._stats,
            time_s=self._device.clock.now_s(),
            running=len(self._queues.running),
            waiting=len(self._queues.waiting),
            queued_tokens=self._queues.queued_tokens(),
            kv_pages_used=cache.pages_used,
            kv_pages_held=cache.pages_held,
            prefill_tokens_per_s=self._latency.prefill_tokens_per_s(),
        )

    def _account(self, results: Results | None, elapsed_s: float) -> None:
        """Overhead is all the time that a pass took from its plan to its emission, but for its forward."""
        if self._in_flight is None and results is None:
            return
        self._spent_s += elapsed_s
        if results is not None:
            overhead_s = max(0.0, self._spent_s - results.forward_s)
            self._stats = replace(self._stats, overhead_s_total=self._stats.overhead_s_total + overhead_s)
            self._spent_s = 0.0

    def _check_books(self) -> None:
        """An idle core proves that no page was lost, once after each busy spell."""
        if self._unchecked and not len(self._queues):
            self._cache.check_integrity()
            self._unchecked = False
