"""The plan of every mode that shares in space: decode steps on one lane, a prefill cut by layers on the other.

Decode first, then layers as far as the decode step lasts, so that a decode step never waits for a prefill and a
change of the split waits for one layer. A phase that is alone has the whole device. What tells the modes apart is a
`Policy`: `mux` has ours, `muxwise` and `batch_table` those of others.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from drift_engine import wire
from drift_engine.latency.loads import Load
from drift_engine.scheduling import admission, lookahead
from drift_engine.scheduling.admission import Room
from drift_engine.scheduling.plans import Chunk, Plan
from drift_engine.scheduling.predictions import Predictions
from drift_engine.scheduling.views import Cut, State, Waiting

SOLO_AHEAD_S = 0.05
"""A prefill that is alone is launched in pieces of about this: a new request waits no longer for its turn, and the
gap between two pieces, some 0.1 ms on a CPU, stays below 0.5 %."""


class Chosen(NamedTuple):
    """A split for one step, and the one that it is a departure from."""

    split: wire.Split
    base: wire.Split


@dataclass(frozen=True, slots=True)
class Policy:
    """What a mode decides for itself."""

    mode: wire.Mode
    split: Callable[[State, Room, Load, Predictions, float], Chosen]
    """For the room's decode rows beside this prefill, now."""
    batch_tokens: Callable[[State, Room, Predictions], int]
    """How many tokens a prefill takes up."""
    interrupts: Callable[[State, Cut, Predictions, float], Waiting | None]
    """Who is prefilled between two layers of this one, now."""
    overtakes: Callable[[State, Room, Predictions, float], Waiting | None] | None = None
    """Who is prefilled before the prompt whose next pass would begin now; None: those under way go first."""
    carries: bool = True
    """Layers that are queued count when the next are launched; without it each step launches for its own time."""


def plan(policy: Policy, state: State, room: Room, latency: Predictions, now_s: float) -> Plan:
    """Nothing while a pass has the whole device."""
    lanes = state.lanes
    flight, cut = lanes.flight, lanes.cuts[-1] if lanes.cuts else None
    if flight is not None and flight.split is None:
        return Plan(policy.mode)
    admitted: tuple[str, ...] = ()
    begin: tuple[Chunk, ...] = ()
    prefill: Load | None
    if cut is None:
        first = policy.overtakes(state, room, latency, now_s) if policy.overtakes is not None else None
        if first is not None:
            admitted, begin = admission.prefill_alone(state, room, first, state.limits.max_step_tokens)
        if not begin and (state.waiting or len(room.running) > len(room.decoding)):
            newest_first = policy.overtakes is not None
            budget_tokens = policy.batch_tokens(state, room, latency)
            admitted, begin = admission.prefill(state, room, budget_tokens, newest_first=newest_first)
    elif (first := policy.interrupts(state, cut, latency, now_s)) is not None:
        admitted, begin = admission.prefill_alone(state, room, first, state.limits.max_step_tokens)
    if begin:
        prefill, cut = Load.prefill([(chunk.tokens, chunk.reused_tokens) for chunk in begin]), None
    elif cut is not None:
        prefill = cut.load
    else:
        prefill = None
    decoding = room.decoding if flight is None else ()
    decode = tuple([row.request_id for row in decoding])
    steps = lookahead.steps(state, room, begin)
    if prefill is None:
        return Plan(policy.mode, preempt=room.preempted, decode=decode, steps=steps)
    split = base = None
    if decoding:
        split, base = policy.split(state, room, prefill, latency, now_s)
        steps = steps if split == base else 1
    elif flight is not None:
        split = flight.split
    if split is not None and any(cut.split is None and cut.launched > cut.done for cut in lanes.cuts):
        # its layers have the whole device for a moment
        return Plan(policy.mode, preempt=room.preempted)
    if split is None:
        horizon_s, prefill_s = SOLO_AHEAD_S, latency.pass_s(prefill, lanes.sms)
    else:
        decode_load = flight.load if flight is not None else room.decode
        prefill_s = latency.beside_s(prefill, split.prefill_sms, decode_load)
        if flight is not None:
            horizon_s = max(0.0, flight.ends_s - now_s)
        else:
            horizon_s = steps * (latency.beside_s(decode_load, split.decode_sms, prefill) or SOLO_AHEAD_S)
    carries = policy.carries or not decoding
    return Plan(
        policy.mode,
        preempt=room.preempted,
        admit=admitted,
        decode=decode,
        steps=steps,
        begin=begin,
        layers=_layers(cut, state.limits.layers, prefill_s, horizon_s, carries=carries),
        split=split,
        base=base,
    )


def first_come_tokens(state: State, room: Room, latency: Predictions) -> int:
    """As many prompts as a pass holds."""
    return state.limits.max_step_tokens


def never(state: State, cut: Cut, latency: Predictions, now_s: float) -> None:
    """No prefill is interrupted."""


def _layers(cut: Cut | None, total: int, prefill_s: float | None, horizon_s: float, *, carries: bool) -> int:
    """As many that those launched last until the horizon: at least one unless some are queued beyond it."""
    launched, done = (0, 0) if cut is None else (cut.launched, cut.done)
    if prefill_s is None or prefill_s <= 0:
        return 1 if launched == done else 0
    layer_s = prefill_s / total
    missing_s = horizon_s
    if carries:
        missing_s -= (launched - done) * layer_s
        if missing_s <= 0 and launched > done:
            return 0
    return min(total - launched, max(1, math.ceil(missing_s / layer_s)))
