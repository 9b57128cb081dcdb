"""Which mode serves the present load best: the one whose prefill is done first while every decode keeps its TBT.

Sharing in space wins where a decode step leaves most of the device idle and the TBT target leaves little time for a
chunk beside it; sharing in time wins where the target is loose, since a chunk then runs on the whole device.
"""

from __future__ import annotations

from collections.abc import Sequence

from drift_engine import wire
from drift_engine.latency.loads import Load
from drift_engine.scheduling import fused, mux
from drift_engine.scheduling.plans import Plan
from drift_engine.scheduling.predictions import Predictions
from drift_engine.scheduling.views import Running, State

STAY_SHARE = 0.95
"""Another mode is taken when it needs less than this share of the present one's time. Estimate."""

MISS_WEIGHT = 4
"""A step of twice the target counts as 16 times the time: keeping the promise comes before finishing prefills, and
among modes that miss it the one that misses it least is taken. Estimate."""


def plan(state: State, latency: Predictions, now_s: float) -> Plan:
    """By `mux` or `fused`. A prefill that is cut stays cut; a phase that is alone is the same in both."""
    lanes = state.lanes
    if not lanes.splits:
        return fused.plan(state, latency)
    decoding = [request for request in state.running if request.remaining_tokens == 1]
    both = decoding and (state.waiting or len(decoding) < len(state.running))
    free = not lanes.cuts and lanes.flight is None
    if free and both and _choose(state, decoding, latency) is wire.Mode.FUSED:
        return fused.plan(state, latency)
    return mux.plan(state, latency, now_s)


def _choose(state: State, decoding: Sequence[Running], latency: Predictions) -> wire.Mode:
    decode, target_s = fused.decode_load(decoding), min(row.tbt_target_s for row in decoding)
    prefill = _pending(state)
    in_mux = _mux_s(state, decode, target_s, prefill, latency)
    in_fused = _fused_s(state, decode, target_s, prefill, latency)
    if in_mux is None or in_fused is None:
        return wire.Mode.MUX  # nothing is known yet: what runs first tells
    if state.lanes.mode is wire.Mode.MUX:
        return wire.Mode.FUSED if in_fused < in_mux * STAY_SHARE else wire.Mode.MUX
    return wire.Mode.MUX if in_mux < in_fused * STAY_SHARE else wire.Mode.FUSED


def _pending(state: State) -> Load:
    """The prefill that is next, at most one pass of it."""
    budget, parts = state.limits.max_step_tokens, []
    pairs = [(r.remaining_tokens, r.computed_tokens) for r in state.running if r.remaining_tokens > 1]
    pairs += [(w.tokens - w.cached_tokens, w.cached_tokens) for w in state.waiting]
    for tokens, reused in pairs:
        if budget <= 0:
            break
        parts.append((min(tokens, budget), reused))
        budget -= tokens
    return Load.prefill(parts)


def _mux_s(state: State, decode: Load, target_s: float, prefill: Load, latency: Predictions) -> float | None:
    """Until the prefill is done on its part; longer by as much as decode misses its target."""
    split = mux.choose_split(state, decode, target_s, prefill, latency)
    step_s = latency.beside_s(decode, split.decode_sms, prefill)
    prefill_s = latency.beside_s(prefill, split.prefill_sms, decode)
    if step_s is None or prefill_s is None:
        return None
    return prefill_s * max(1.0, step_s / target_s) ** MISS_WEIGHT


def _fused_s(
    state: State, decode: Load, target_s: float, prefill: Load, latency: Predictions
) -> float | None:
    """Until the prefill is done in chunks beside decode rows; longer by as much as decode misses its target."""
    limits, sms = state.limits, state.lanes.sms
    reused = fused.reused_tokens(state)
    slack_s = target_s * fused.SLACK_SHARE
    if limits.chunk_tokens is not None:
        chunk: int | None = max(1, limits.chunk_tokens - decode.decode_rows)
    else:
        ceiling = limits.max_step_tokens - decode.decode_rows
        chunk = fused.largest_chunk_tokens(decode, reused, slack_s, ceiling, sms, latency)
    if chunk is None:
        return None
    full, rest = divmod(prefill.new_tokens, chunk)
    reused += prefill.new_tokens // prefill.prefill_rows // 2  # half of a prompt's own chunks, on average
    total_s, longest_s = 0.0, 0.0
    for count, tokens in ((full, chunk), (1, rest)):
        if count and tokens:
            step_s = latency.pass_s(decode + Load.prefill([(tokens, reused)]), sms)
            if step_s is None:
                return None
            total_s, longest_s = total_s + count * step_s, max(longest_s, step_s)
    return total_s * max(1.0, longest_s / target_s) ** MISS_WEIGHT
