"""Baseline: whole prompts before any decode, as engines without chunking do."""

from __future__ import annotations

from drift_engine import wire
from drift_engine.scheduling import admission, lookahead
from drift_engine.scheduling.plans import Plan
from drift_engine.scheduling.views import State


def plan(state: State) -> Plan:
    """Prompts as long as any waits, decode rows otherwise."""
    room = admission.make_room(state)
    admitted, chunks = admission.prefill(state, room, state.limits.max_step_tokens)
    return Plan(
        wire.Mode.PREFILL_FIRST,
        preempt=room.preempted,
        admit=admitted,
        decode=() if chunks else tuple(request.request_id for request in room.decoding),
        prefill=chunks,
        steps=1 if chunks else lookahead.steps(state, room),
    )
