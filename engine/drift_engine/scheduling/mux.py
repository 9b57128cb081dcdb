"""PD multiplexing: decode steps on one part of the device, a prefill cut by layers on the other, at the same time.

After MuxWise (arXiv 2504.14489 v3, section 3): the smallest decode part whose predicted step keeps the TBT target,
everything else to prefill; the prefill's layers are launched as far as the decode step lasts, so that a decode step
never waits for a prefill and a change of the split waits for one layer. A phase that is alone has the whole device.
"""

from __future__ import annotations

import math
from dataclasses import replace

from drift_engine import wire
from drift_engine.latency.loads import Load
from drift_engine.scheduling import admission, fused, lookahead
from drift_engine.scheduling.plans import Chunk, Plan
from drift_engine.scheduling.predictions import Predictions
from drift_engine.scheduling.views import Cut, State

SOLO_AHEAD_S = 0.05
"""A prefill that is alone is launched in pieces of about this: a new request waits no longer for its turn, and the
gap between two pieces, some 0.1 ms on a CPU, stays below 0.5 %."""

MAX_INTERRUPTED = 3
"""Each holds the activations of a pass, 2 * max_step_tokens * hidden values: 67 MB for 2,048 tokens of an 8B model in
float32, 33 MB in bfloat16. Three let a short prompt through even where a medium one interrupted a long one."""

CONSTANT_SHARE = 0.1
"""Prompts are prefilled together until what a pass costs whatever its length is this share of it. With all that wait
in one pass, four prompts of 512 tokens had a mean TTFT of 4.8 s (117M, one core of two); one by one it is 3.0 s."""

PROBE_TOKENS = (128, 256)
"""Where that constant is read off: short enough that attention does not count, long enough for full products."""

KEEP_SHARE = 0.85
"""A smaller decode part is taken only when its step fills no more than this of the target, a larger one as soon as
the present one's exceeds the target: the split does not flutter. Estimate."""


def plan(state: State, latency: Predictions, now_s: float) -> Plan:
    """Decode first, then layers; nothing while a pass has the whole device."""
    lanes = state.lanes
    flight, cut = lanes.flight, lanes.cuts[-1] if lanes.cuts else None
    if flight is not None and flight.split is None:
        return Plan(wire.Mode.MUX)
    room = admission.make_room(state)
    admitted: tuple[str, ...] = ()
    begin: tuple[Chunk, ...] = ()
    prefill: Load | None
    if cut is None:
        admitted, begin = admission.prefill(state, room, batch_tokens(state, latency))
    elif _interrupts(state, cut, latency, now_s):
        head = replace(state, waiting=state.waiting[:1])
        admitted, begin = admission.prefill(
            head, replace(room, running=room.decoding), state.limits.max_step_tokens
        )
    if begin:
        prefill, cut = prefill_load(begin), None
    elif cut is not None:
        prefill = cut.load
    else:
        prefill = None
    decoding = room.decoding if flight is None else ()
    steps = lookahead.steps(state, room, begin)
    if prefill is None:
        return Plan(
            wire.Mode.MUX,
            preempt=room.preempted,
            decode=tuple(row.request_id for row in decoding),
            steps=steps,
        )
    split = None
    if decoding:
        split = choose_split(
            state, fused.decode_load(decoding), min(row.tbt_target_s for row in decoding), prefill, latency
        )
    elif flight is not None:
        split = flight.split
    if split is not None and any(cut.split is None and cut.launched > cut.done for cut in lanes.cuts):
        return Plan(wire.Mode.MUX, preempt=room.preempted)  # its layers have the whole device for a moment
    if split is None:
        horizon_s, prefill_s = SOLO_AHEAD_S, latency.pass_s(prefill, lanes.sms)
    else:
        decode = flight.load if flight is not None else fused.decode_load(decoding)
        prefill_s = latency.beside_s(prefill, split.prefill_sms, decode)
        if flight is not None:
            horizon_s = max(0.0, flight.ends_s - now_s)
        else:
            horizon_s = steps * (latency.beside_s(decode, split.decode_sms, prefill) or SOLO_AHEAD_S)
    return Plan(
        wire.Mode.MUX,
        preempt=room.preempted,
        admit=admitted,
        decode=tuple(row.request_id for row in decoding),
        steps=steps,
        begin=begin,
        layers=_layers(cut, state.limits.layers, prefill_s, horizon_s),
        split=split,
    )


def batch_tokens(state: State, latency: Predictions) -> int:
    """How many tokens a prefill takes up: the next prompt, and others beside it only as long as that makes the whole
    more efficient. More would only make the first wait for the last."""
    most, sms = state.limits.max_step_tokens, state.lanes.sms
    waiting = [w.tokens - w.cached_tokens for w in state.waiting[:1]]
    first = next((r.remaining_tokens for r in state.running if r.remaining_tokens > 1), sum(waiting))
    probes = [latency.pass_s(Load.prefill([(tokens, 0)]), sms) for tokens in PROBE_TOKENS]
    if probes[0] is None or probes[1] is None or probes[1] <= probes[0]:
        return most
    token_s = (probes[1] - probes[0]) / (PROBE_TOKENS[1] - PROBE_TOKENS[0])
    constant_s = max(0.0, probes[0] - token_s * PROBE_TOKENS[0])
    saturating = int(constant_s / token_s * (1 / CONSTANT_SHARE - 1))
    return min(most, max(first, saturating))


def prefill_load(chunks: tuple[Chunk, ...]) -> Load:
    return Load.prefill([(chunk.tokens, chunk.reused_tokens) for chunk in chunks])


def choose_split(
    state: State, decode: Load, tbt_target_s: float, prefill: Load, latency: Predictions
) -> wire.Split:
    """The fewest decode SMs whose step, beside the prefill, keeps the target; the most where none does.

    Nothing known counts as kept: the first step tells.
    """
    present = state.lanes.split
    for split in state.lanes.splits:
        share = 1.0 if present is None or split.decode_sms >= present.decode_sms else KEEP_SHARE
        step_s = latency.beside_s(decode, split.decode_sms, prefill)
        if step_s is None or step_s <= tbt_target_s * share:
            return split
    return state.lanes.splits[-1]


def _interrupts(state: State, cut: Cut, latency: Predictions, now_s: float) -> bool:
    """Whether the first waiting request is prefilled between two layers of the one that is cut.

    It would be late behind it and makes its target before it; the one that is cut makes its own all the same, or is
    late anyway. A longer one never interrupts, so that prefills are not torn to pieces.
    """
    if not state.waiting or len(state.lanes.cuts) > MAX_INTERRUPTED:
        return False
    first, sms = state.waiting[0], state.lanes.sms if cut.split is None else cut.split.prefill_sms
    own_s = latency.pass_s(Load.prefill([(first.tokens - first.cached_tokens, first.cached_tokens)]), sms)
    whole_s = latency.pass_s(cut.load, sms)
    if own_s is None or whole_s is None:
        return False
    left_s = whole_s * (cut.layers - cut.launched) / cut.layers
    late_behind = now_s + left_s + own_s > first.deadline_s
    in_time_before = now_s + own_s <= first.deadline_s
    allowed = now_s + left_s + own_s <= cut.deadline_s or now_s + left_s > cut.deadline_s
    return own_s < left_s and late_behind and in_time_before and allowed


def _layers(cut: Cut | None, total: int, prefill_s: float | None, horizon_s: float) -> int:
    """As many that those launched last until the horizon: at least one unless some are queued beyond it."""
    launched, done = (0, 0) if cut is None else (cut.launched, cut.done)
    if prefill_s is None or prefill_s <= 0:
        return 1 if launched == done else 0
    layer_s = prefill_s / total
    missing_s = horizon_s - (launched - done) * layer_s
    if missing_s <= 0 and launched > done:
        return 0
    return min(total - launched, max(1, math.ceil(missing_s / layer_s)))
