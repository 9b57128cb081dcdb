"""Which mode serves the present load best: the one whose prefill is done first while every decode keeps its TBT.

Sharing in space wins where a decode step leaves most of the device idle and the TBT target leaves little time for a
chunk beside it; sharing in time wins where the target is loose, since a chunk then runs on the whole device.
"""

from __future__ import annotations

import math

from drift_engine import wire
from drift_engine.latency.loads import Load
from drift_engine.scheduling import fused, slack, splits, two_lanes
from drift_engine.scheduling.admission import Room
from drift_engine.scheduling.mux import MUX
from drift_engine.scheduling.plans import Plan
from drift_engine.scheduling.predictions import Predictions
from drift_engine.scheduling.views import NOTHING, State

STAY_SHARE = 0.95
"""Another mode is taken when it needs less than this share of the present one's time. Estimate."""

MISS_WEIGHT = 4
"""A step of twice the target counts as 16 times the time: keeping the promise comes before finishing prefills, and
among modes that miss it the one that misses it least is taken. Estimate."""


def plan(state: State, room: Room, latency: Predictions, now_s: float) -> Plan:
    """By `mux` or `fused`. A prefill that is cut stays cut until its pass ends; a phase that is alone is the same in
    both."""
    lanes = state.lanes
    if not lanes.splits:
        return fused.plan(state, room, latency, now_s)
    flight, prefills = lanes.flight, state.waiting or len(room.decoding) < len(room.running)
    if prefills and not lanes.cuts and flight is None and room.decoding:
        allowed_s = fused.allowed_s(state, room, latency, now_s)
        mode, chunk_tokens = _choose(state, room, room.decode, allowed_s, latency, now_s)
        if mode is wire.Mode.FUSED:
            return fused.plan(state, room, latency, now_s, chunk_tokens)
    elif prefills and not lanes.cuts and flight is not None and flight.split is not None:
        # A prefill ended in the middle of a step. Where one follows another this is the only moment to leave `mux`:
        # the next one waits for the end of the step.
        targets_s = [flight.tbt_target_s, *[row.tbt_target_s for row in room.decoding]]
        allowed_s = min(targets_s) * (slack.PRESSED_SHARE if state.pressed else 1.0)
        decode, wait_s = flight.load + room.decode, max(0.0, flight.ends_s - now_s)
        mode, _ = _choose(state, room, decode, allowed_s, latency, now_s, wait_s)
        if mode is wire.Mode.FUSED:
            return Plan(wire.Mode.FUSED, preempt=room.preempted)
    return two_lanes.plan(MUX, state, room, latency, now_s)


def _choose(
    state: State,
    room: Room,
    decode: Load,
    allowed_s: float,
    latency: Predictions,
    now_s: float,
    wait_s: float = 0.0,
) -> tuple[wire.Mode, int]:
    """And how many tokens a fused pass would prefill, after `wait_s`."""
    pieces = fused.pending(state, room)
    chunk_tokens = fused.find_budget_tokens(state, decode, allowed_s, pieces, latency)
    in_mux = _mux_s(state, decode, allowed_s, Load.prefill(pieces), latency, now_s)
    in_fused = _fused_s(state.lanes.sms, decode, allowed_s, pieces, chunk_tokens, latency)
    if in_mux is None or in_fused is None:
        return wire.Mode.MUX, chunk_tokens  # nothing is known yet: what runs first tells
    in_fused += wait_s
    if state.lanes.mode is wire.Mode.MUX:
        better = wire.Mode.FUSED if in_fused < in_mux * STAY_SHARE else wire.Mode.MUX
    else:
        better = wire.Mode.MUX if in_mux < in_fused * STAY_SHARE else wire.Mode.FUSED
    return better, chunk_tokens


def _mux_s(
    state: State, decode: Load, allowed_s: float, prefill: Load, latency: Predictions, now_s: float
) -> float | None:
    """Until the prefill is done on its part; longer by as much as decode misses its time."""
    settled = splits.settled(state, decode, allowed_s, prefill, latency, now_s)
    split = splits.balanced(state, settled, decode, prefill, latency)
    step_s = latency.beside_s(decode, split.decode_sms, prefill)
    prefill_s = latency.beside_s(prefill, split.prefill_sms, decode)
    if step_s is None or prefill_s is None:
        return None
    return prefill_s * max(1.0, step_s / allowed_s) ** MISS_WEIGHT


def _fused_s(
    sms: int, decode: Load, allowed_s: float, pieces: fused.Pieces, chunk_tokens: int, latency: Predictions
) -> float | None:
    """Until the prefill is done in chunks beside decode rows; longer by as much as decode misses its time.

    All passes last as long as the first. How many there are depends on what their chunks are behind, of which the
    first one tells nothing: the rest of a long prompt may stand before a short one.
    """
    tokens = sum([new for new, _ in pieces])
    chunk_tokens = min(chunk_tokens, tokens)
    step_s = latency.pass_s(fused.beside(decode, pieces, chunk_tokens), sms)
    if step_s is None:
        return None
    total_s = step_s
    if chunk_tokens < tokens:
        # behind what each prompt reuses and half of its own other chunks, on average
        behind = sum([new * (reused + max(0, new - chunk_tokens) // 2) for new, reused in pieces]) // tokens
        first_s = latency.pass_s(fused.beside(NOTHING, pieces, chunk_tokens), sms)
        usual_s = latency.pass_s(Load.prefill([(chunk_tokens, behind)]), sms)
        if not first_s or usual_s is None:
            return None
        passes = tokens / chunk_tokens * usual_s / first_s
        total_s = passes * first_s + math.ceil(passes - 1e-9) * (step_s - first_s)
    return total_s * max(1.0, step_s * latency.fused_factor / allowed_s) ** MISS_WEIGHT
