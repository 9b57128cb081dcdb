"""The core's step: take messages, plan, launch, poll, merge, emit.

Decisions are in `scheduling.planner`, computing is behind `devices.base.Device`, pages are `cache.KvCache`'s. The
loop only carries out: it may be read as the list of what happens to a request, in order.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from drift_engine import wire
from drift_engine.cache import KvCache, OutOfPages
from drift_engine.core import blocks, pictures
from drift_engine.core.channel import Messages
from drift_engine.core.flights import Ended, Flights
from drift_engine.core.grammars import GrammarError, Grammars
from drift_engine.core.held_tokens import HeldTokens
from drift_engine.core.limits import CoreLimits
from drift_engine.core.queues import Queues
from drift_engine.core.requests import Promise, Request
from drift_engine.core.tables import KeptTable
from drift_engine.devices.base import Device, Drawn, Row
from drift_engine.latency.loads import Load
from drift_engine.launches import Span
from drift_engine.scheduling import order, pacing, planner, plans, sharing, splits, views
from drift_engine.scheduling.predictions import Learned

log = logging.getLogger(__name__)

IDLE_WAIT_S = 0.5
"""An idle core looks this often whether its node still lives."""

HEARTBEAT_S = 1.0
"""A core without news says so this often; a node whose core is silent for long ends."""

COSTS_S = 1.0
"""Between two tellings of what passes cost: the operator, who asks for it, looks once a second."""

POLL_WAIT_S = 0.02
"""A busy core reads messages this often while a pass runs; the end of the pass wakes it at once."""


class Core:
    """One model on one device. Single-threaded: whoever calls `step` owns it. `grammars` None: no request has one."""

    def __init__(
        self,
        device: Device,
        cache: KvCache,
        channel: Messages,
        grammars: Grammars | None,
        mode: wire.Mode,
        limits: CoreLimits,
        targets: wire.Targets,
        latency: Learned,
    ) -> None:
        self._device = device
        self._cache = cache
        self._channel = channel
        self._grammars = grammars
        self._mode = mode
        self._limits = limits
        self._promise = Promise(targets, limits.slack)
        self._bounds: wire.SetBounds | None = None
        self._latency = latency
        self._queues = Queues()
        self._flights = Flights(device, latency, limits.layers, limits.kept_spans)
        self._legal = splits.usable(mode, device.splits, device.whole.sms)
        self._planned_limits = views.Limits(
            limits.max_running,
            limits.chunk_tokens,
            limits.max_step_tokens,
            limits.layers,
            device.lookahead_steps,
            limits.min_dwell_s,
        )
        self._table = KeptTable(mode, limits, latency)
        self._pressed = False
        self._outputs: list[wire.Output] = []
        self._held = HeldTokens()
        self._events_sequence = 1  # 0 means: before the first
        self._activity_s = dict.fromkeys(wire.Activity, 0.0)
        self._decoded = Load.decode(1, 0)  # the decode rows of the last pass that had any
        self._worked_s = 0.0  # by the loop, since a pass ended
        self._changed = False
        self._unchecked = False
        self._told_s = 0.0
        self._costs = wire.Costs((), None)
        self._costs_told_s = -math.inf
        self._stats = wire.Stats(0.0, 0, 0, 0, 0, 0, cache.pages_total)
        self.stopping = False

    @property
    def spans(self) -> Sequence[Span]:
        """What the lanes did last."""
        return self._flights.spans

    @property
    def requests(self) -> Mapping[str, Request]:
        """Those that run."""
        return self._queues.running

    def step(self) -> None:
        """One turn. Returns within IDLE_WAIT_S, or POLL_WAIT_S while a lane computes."""
        busy = len(self._flights) > 0 or len(self._queues) > 0
        if messages := self._channel.receive(0.0 if busy else IDLE_WAIT_S):
            self._take(messages)
            self._flights.recall()
        clock = self._device.clock
        start_s = clock.now_s()
        self._carry_out(self._plan())
        if not len(self._flights) and self._queues.running:
            self._preempt(self._latest())
        activity, launched_s = self._flights.activity, clock.now_s()
        ended = self._flights.poll(POLL_WAIT_S)
        waited_s = clock.now_s() - launched_s
        for flight in ended:
            self._merge(flight)
        if self._held and self._flights.step_at_work is None:
            self._tell_held()
        self._emit()
        if activity is not None:
            self._account(activity, ended, clock.now_s() - start_s, waited_s)
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
                case wire.SetBounds():
                    self._bounds = message
                    self._changed = True
                case wire.SetTargets(targets):
                    self._promise.targets = targets
                    self._queues.settle()
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
        matcher = finish = None
        if message.sampling.grammar is not None:
            assert self._grammars is not None, "a request with a grammar"
            try:
                matcher = self._grammars.matcher(message.sampling.grammar)
            except GrammarError as error:
                self._refuse(message, f"grammar: {error}")
                return
        marks: tuple[int, ...] = ()
        if self._cache.prefix:
            marks = sharing.marks(message.token_ids, message.salt, self._cache.page_tokens)
        request = Request(message, self._promise, limits.eos_token_ids, matcher, marks)
        if message.drawn_token_ids:
            try:
                finish = request.resume(limits.max_model_len_tokens)
            except GrammarError as error:
                self._refuse(message, f"the tokens to resume from: {error}")
                return
        if finish is not None:
            self._outputs.append(wire.Output(message.request_id, [], finish=finish))
            return
        request.waiting_view(self._cache)  # its deadline depends on what is cached
        self._queues.enqueue(request)
        self._changed = True

    def _refuse(self, message: wire.Submit, error: str) -> None:
        self._outputs.append(
            wire.Output(message.request_id, [], finish=wire.FinishReason.ABORTED, error=error)
        )

    def _cancel(self, request_id: str) -> None:
        request = self._queues.find(request_id)
        if request is None:
            return
        if request_id in self._flights:
            request.cancelled = True  # its pages are written to until the pass ends
            self._flights.drop(lambda other: not self._queues.running[other].cancelled)
        else:
            self._finish(request)
        self._changed = True

    # plan and launch --------------------------------------------------------------------------------------

    def _plan(self) -> plans.Plan:
        flights = self._flights
        if not len(self._queues) or flights.full:
            return plans.Plan(self._mode)
        now_s = self._device.clock.now_s()
        legal = self._splits(now_s)
        state = pictures.take(
            self._queues,
            self._cache,
            self._planned_limits,
            flights.view(legal),
            flights.requests,
            self._line_rate(),
            now_s,
            pressed=self._pressed,
            table=self._table.take(legal, self._promise.tbt_s),
        )
        self._pressed = state.pressed
        return planner.plan(self._mode, state, self._latency, now_s)

    def _line_rate(self) -> float | None:
        """In tokens a second, by which the line is ordered; None: by arrival."""
        if self._mode in order.FIRST_COME:
            return None
        return self._latency.prefill_tokens_per_s(self._prefill_sms())

    def _splits(self, now_s: float) -> tuple[wire.Split, ...]:
        """Those within the bounds that the node was given, as long as they hold."""
        if self._bounds is not None and now_s >= self._bounds.until_s:
            self._bounds = None
            self._changed = True
        bounds = self._bounds
        if bounds is None:
            return self._legal
        return tuple(s for s in self._legal if bounds.decode_sms_min <= s.decode_sms <= bounds.decode_sms_max)

    def _carry_out(self, plan: plans.Plan) -> None:
        flights = self._flights
        for request_id in plan.preempt:
            self._preempt(self._queues.running[request_id])
        for request_id in plan.admit:
            self._admit(self._queues.admit(request_id))
        decode = self._rows([(request_id, 1) for request_id in plan.decode], plan.steps)
        prefill = self._rows([(chunk.request_id, chunk.tokens) for chunk in plan.prefill])
        begin = self._rows([(chunk.request_id, chunk.tokens) for chunk in plan.begin])
        if begin:
            begun = [self._queues.running[row.request_id] for row in begin]
            flights.begin(
                begin,
                _rest(begun, begin),
                min(request.deadline_s for request in begun),
                min(order.firm_s(request.arrival_s, request.deadline_s) for request in begun),
            )
        if plan.base is not None:
            flights.settle(plan.base)
        if decode or prefill:
            # A split whose prefill found no pages is none: the pass has the device to itself.
            split = plan.split if flights.cutting else None
            running = self._queues.running
            target_s = min([running[row.request_id].tbt_target_s for row in decode], default=math.inf)
            flights.launch(plan.mode, decode, prefill, split, plan.steps, target_s)
        if plan.layers and flights.cutting:
            flights.launch_layers(plan.mode, plan.layers, plan.split)

    def _admit(self, request: Request) -> None:
        request.sequence = self._cache.open(request.tokens, request.submit.salt)
        request.computed = request.sequence.cached_tokens
        if request.first_cached_tokens is None:  # a resume reuses what the request itself has computed
            request.first_cached_tokens = min(request.computed, request.prompt_tokens)
            request.settle()
            request.queued_s = max(0.0, self._device.clock.now_s() - request.submit.arrival_s)
            self._stats = replace(
                self._stats,
                prompt_tokens_total=self._stats.prompt_tokens_total + request.prompt_tokens,
                cached_tokens_total=self._stats.cached_tokens_total + request.first_cached_tokens,
            )

    def _preempt(self, request: Request) -> None:
        """Back to its place in the line; its written pages stay cached for as long as nobody needs them."""
        self._tell_held()
        self._queues.remove(request)
        self._give_back(request)
        request.rest()
        request.waiting_view(self._cache)
        self._queues.enqueue(request)
        self._stats = replace(self._stats, preemptions_total=self._stats.preemptions_total + 1)

    def _latest(self) -> Request:
        """Whom to preempt when no running request could move: shared pages were counted twice."""
        return max(self._queues.running.values(), key=lambda r: (-r.priority, r.arrival_s))

    def _rows(self, wanted: list[tuple[str, int]], steps: int = 1) -> tuple[Row, ...]:
        rows = []
        for request_id, tokens in wanted:
            request = self._queues.running[request_id]
            assert request.sequence is not None
            stop = min(request.computed + tokens, len(request.tokens))
            try:
                self._cache.reserve(request.sequence, stop + steps - 1)
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

    def _merge(self, ended: Ended) -> None:
        """Books what a pass computed: pages become shareable, requests get their token or end."""
        if ended.lane_sms is not None:
            self._latency.observe(
                ended.load, ended.lane_sms, ended.step_s, ended.neighbour, self._device.clock.now_s()
            )
        if ended.load.decode_rows:
            self._decoded = Load.decode(ended.load.decode_rows, ended.load.decode_context_tokens)
        computed_prompt = 0
        for request_id, tokens in ended.advances.items():
            request = self._queues.running[request_id]
            assert request.sequence is not None
            computed_prompt += max(0, min(tokens, request.prompt_tokens - request.computed))
            over = request.cancelled
            if request.submit.traced and tokens and request.prefills:
                blocks.add(request.blocks, ended.launches, tokens)
            if request_id in ended.drawn and not over:
                over = self._take_tokens(request, ended.drawn[request_id])
            request.computed = min(request.computed + tokens, len(request.tokens))
            self._cache.publish(request.sequence, request.tokens, request.computed)
            if over:
                self._finish(request)
        self._stats = replace(
            self._stats,
            steps_total=self._stats.steps_total + 1,
            computed_prompt_tokens_total=self._stats.computed_prompt_tokens_total + computed_prompt,
            generation_tokens_total=self._stats.generation_tokens_total + sum(map(len, ended.drawn.values())),
            forward_s_total=self._stats.forward_s_total + ended.forward_s,
        )
        self._changed = True

    def _take_tokens(self, request: Request, drawn: Sequence[Drawn]) -> bool:
        """Whether the request ends with them; what was drawn beyond its end is nobody's."""
        finish = stop_token = error = None
        first = not request.told_tokens
        taken = 0
        for one in drawn:
            taken += 1
            try:
                finish, stop_token = request.take(one, self._limits.max_model_len_tokens)
            except GrammarError as grammar_error:
                finish, stop_token, error = wire.FinishReason.ABORTED, None, str(grammar_error)
            if finish is not None:
                break
        logprobs = [one.logprobs for one in drawn[:taken] if one.logprobs is not None]
        output = wire.Output(
            request.request_id,
            [one.token_id for one in drawn[:taken]],
            logprobs or None,
            finish,
            stop_token,
            request.first_cached_tokens or 0 if first else 0,
            error,
            request.queued_s if first else 0.0,
            request.take_blocks() if request.blocks else [],
        )
        now_s, step = self._device.clock.now_s(), self._flights.step_at_work
        if first and finish is None and pacing.waits(step, request.deadline_s, request.tbt_target_s, now_s):
            self._held.hold(request, output)
        else:
            request.drew(taken, now_s)
            self._outputs.append(output)
        return finish is not None

    def _tell_held(self) -> None:
        self._outputs += self._held.tell(self._device.clock.now_s())

    def _finish(self, request: Request) -> None:
        self._held.drop(request)
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
        if now_s - self._costs_told_s >= COSTS_S:
            self._costs_told_s = now_s
            self._tell_costs()

    def _tell_costs(self) -> None:
        whole_sms = self._device.whole.sms
        known = [self._latency.split_cost(s.decode_sms, s.prefill_sms) for s in self._legal]
        splits = tuple(cost for cost in known if cost is not None)
        whole = self._latency.split_cost(whole_sms, whole_sms)
        costs = wire.Costs(splits, whole and replace(whole, contention=1.0))
        if costs != self._costs:
            self._costs = costs
            self._channel.send(costs)

    # books ------------------------------------------------------------------------------------------------

    def _snapshot(self) -> wire.Stats:
        cache, errors, now_s = self._cache, self._latency.errors(), self._device.clock.now_s()
        return replace(
            self._stats,
            time_s=now_s,
            running=len(self._queues.running),
            waiting=len(self._queues.waiting),
            queued_tokens=self._queues.queued_tokens(),
            kv_pages_used=cache.pages_used,
            kv_pages_held=cache.pages_held,
            prefill_tokens_per_s=self._latency.prefill_tokens_per_s(self._prefill_sms()),
            tbt_per_request_s=self._row_s(),
            split=self._flights.split,
            bounds_epoch=self._bounds.epoch if self._bounds is not None else 0,
            activity_s_total=dict(self._activity_s),
            prediction_errors={
                "decode": errors.decode_mape,
                "prefill": errors.prefill_mape,
                "fused": errors.fused_mape,
            },
            late_decode_share=errors.decode_under_share,
            decode_context_tokens=self._queues.decode_context_tokens(),
            ahead=self._queues.ahead_of_new(self._promise, self._line_rate(), now_s),
        )

    def _row_s(self) -> float:
        """What one more row like those that decoded last adds to a step; 0 where nothing is known."""
        now = self._decoded
        more = now + Load.decode(1, now.decode_context_tokens // now.decode_rows)
        split = self._present_split()
        sms = self._device.whole.sms if split is None else split.decode_sms
        now_s, more_s = self._latency.pass_s(now, sms), self._latency.pass_s(more, sms)
        return more_s - now_s if now_s is not None and more_s is not None else 0.0

    def _prefill_sms(self) -> int:
        """What a prefill would have now."""
        split = self._present_split()
        return self._device.whole.sms if split is None else split.prefill_sms

    def _present_split(self) -> wire.Split | None:
        """That prefill and decode would share the device by now; None: neither has a part of its own."""
        return self._flights.split if self._flights.mode is wire.Mode.MUX else None

    def _account(
        self, activity: wire.Activity, ended: list[Ended], elapsed_s: float, waited_s: float
    ) -> None:
        """Overhead is the loop's own work, and of the passes all but their forward."""
        self._activity_s[activity] += elapsed_s
        self._worked_s += elapsed_s - waited_s
        if ended:
            overhead_s = self._worked_s + sum(flight.overhead_s for flight in ended)
            self._worked_s = 0.0
            self._stats = replace(self._stats, overhead_s_total=self._stats.overhead_s_total + overhead_s)

    def _check_books(self) -> None:
        """An idle core proves that no page was lost, once after each busy spell."""
        if self._unchecked and not len(self._queues):
            self._cache.check_integrity()
            self._unchecked = False


def _rest(requests: Sequence[Request], rows: Sequence[Row]) -> Load:
    """What the prompts need behind these rows."""
    left = [request.left_behind(len(row.token_ids)) for request, row in zip(requests, rows, strict=True)]
    return Load.prefill([(tokens, computed) for tokens, computed in left if tokens])
