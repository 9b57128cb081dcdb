"""Baselines with one phase at a time, on the whole device.

prefill-first  whole prompts before any decode, as many in a pass as it holds: engines without chunking
solo-prefill   the same, one prompt after the other
solo-decode    no prefill starts while anything decodes: static batches. A request that has waited until it is aged
               (`order.aged_s`) is prefilled between two steps, so that a long answer starves nobody.
"""

from __future__ import annotations

from dataclasses import replace

from drift_engine import wire
from drift_engine.scheduling import admission, lookahead, order
from drift_engine.scheduling.admission import Room
from drift_engine.scheduling.plans import Plan
from drift_engine.scheduling.views import State


def prefill_first(state: State, room: Room) -> Plan:
    return _plan(wire.Mode.PREFILL_FIRST, state, room)


def solo_prefill(state: State, room: Room) -> Plan:
    places = 0 if admission.prefilling(room) else 1
    return _plan(wire.Mode.SOLO_PREFILL, replace(state, waiting=state.waiting[:places]), room)


def solo_decode(state: State, room: Room, now_s: float) -> Plan:
    """A prefill that is under way goes on; what is admitted while others decode comes alone."""
    if room.decoding:
        aged = any(now_s >= order.aged_s(w.arrival_s, w.deadline_s) for w in state.waiting)
        places = 1 if aged and not admission.prefilling(room) else 0
        state = replace(state, waiting=state.waiting[:places])
    return _plan(wire.Mode.SOLO_DECODE, state, room)


def _plan(mode: wire.Mode, state: State, room: Room) -> Plan:
    """Prompts as long as any may be prefilled, decode rows otherwise."""
    admitted, chunks = admission.prefill(state, room, state.limits.max_step_tokens)
    return Plan(
        mode,
        preempt=room.preempted,
        admit=admitted,
        decode=() if chunks else tuple([request.request_id for request in room.decoding]),
        prefill=chunks,
        steps=1 if chunks else lookahead.steps(state, room),
    )
