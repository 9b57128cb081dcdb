"""Which mode serves the present load best: the one whose prefill is done first while every decode keeps its TBT.

Sharing in space wins where a decode step leaves most of the device idle and the TBT target leaves little time for a
chunk beside it; sharing in time wins where the target is loose, since a chunk then runs on the whole device.
"""

from __future__ import annotations

from drift_engine import wire
from drift_engine.latency.loads import Load
from drift_engine.scheduling import fused, slack, splits, two_lanes
from drift_engine.scheduling.admission import Room
from drift_engine.scheduling.mux import MUX
from drift_engine.scheduling.plans import Plan
from drift_engine.scheduling.predictions import Predictions
from drift_engine.scheduling.views import State

STAY_SHARE = 0.95
"""Another mode is taken when it needs less than this share of the present one's time. Estimate."""

MISS_WEIGHT = 4
"""A step of twice the target counts as 16 times the time: keeping the promise comes before finishing prefills, and
among modes that miss it the one that misses it least is taken. Estimate."""


def plan(state: State, room: Room, latency: Predictions, now_s: float) -> Plan:
    """By `mux` or `fused`. A prefill that is cut stays cut; a phase that is alone is the same in both."""
    lanes = state.lanes
    if not lanes.splits:
        return fused.plan(state, room, latency, now_s)
    both = room.decoding and (state.waiting or len(room.decoding) < len(room.running))
    if both and not lanes.cuts and lanes.flight is None:
        pieces = fused.pending(state, room)
        chunk_tokens = fused.find_budget_tokens(state, room, pieces, latency, now_s)
        if _choose(state, room, pieces, chunk_tokens, latency, now_s) is wire.Mode.FUSED:
            return fused.plan(state, room, latency, now_s, chunk_tokens)
    return two_lanes.plan(MUX, state, room, latency, now_s)


def _choose(
    state: State,
    room: Room,
    pieces: fused.Pieces,
    chunk_tokens: int,
    latency: Predictions,
    now_s: float,
) -> wire.Mode:
    fastest_s = fused.fastest_s(state, room, latency)
    allowed_s = slack.allowed_s(room.decoding, now_s, fastest_s, pressed=state.pressed)
    prefill = Load.prefill(pieces)
    in_mux = _mux_s(state, room.decode, allowed_s, prefill, latency, now_s)
    reused = pieces[0][1]
    in_fused = _fused_s(state.lanes.sms, room.decode, allowed_s, chunk_tokens, reused, prefill, latency)
    if in_mux is None or in_fused is None:
        return wire.Mode.MUX  # nothing is known yet: what runs first tells
    if state.lanes.mode is wire.Mode.MUX:
        return wire.Mode.FUSED if in_fused < in_mux * STAY_SHARE else wire.Mode.MUX
    return wire.Mode.MUX if in_mux < in_fused * STAY_SHARE else wire.Mode.FUSED


def _mux_s(
    state: State, decode: Load, allowed_s: float, prefill: Load, latency: Predictions, now_s: float
) -> float | None:
    """Until the prefill is done on its part; longer by as much as decode misses its time."""
    split = splits.settled(state, decode, allowed_s, prefill, latency, now_s)
    step_s = latency.beside_s(decode, split.decode_sms, prefill)
    prefill_s = latency.beside_s(prefill, split.prefill_sms, decode)
    if step_s is None or prefill_s is None:
        return None
    return prefill_s * max(1.0, step_s / allowed_s) ** MISS_WEIGHT


def _fused_s(
    sms: int,
    decode: Load,
    allowed_s: float,
    chunk_tokens: int,
    reused_tokens: int,
    prefill: Load,
    latency: Predictions,
) -> float | None:
    """Until the prefill is done in chunks beside decode rows; longer by as much as decode misses its time."""
    full, rest = divmod(prefill.new_tokens, chunk_tokens)
    # behind what the first prompt reuses and half of a prompt's own chunks, on average
    reused = reused_tokens + prefill.new_tokens // prefill.prefill_rows // 2
    total_s, longest_s = 0.0, 0.0
    for count, tokens in ((full, chunk_tokens), (1, rest)):
        if count and tokens:
            step_s = latency.pass_s(decode + Load.prefill([(tokens, reused)]), sms)
            if step_s is None:
                return None
            total_s, longest_s = total_s + count * step_s, max(longest_s, step_s)
    return total_s * max(1.0, longest_s / allowed_s) ** MISS_WEIGHT
