"""`plan(mode, state, latency, now) -> Plan`: the one decision of a step, by the node's mode.

fused          decode rows and prefill chunks share a pass; the chunk is what the tightest TBT target allows
mux            decode on its part of the device, prefill by layers on the rest
auto           whichever of the two serves the present load better
prefill-first  baseline: whole prompts before any decode, as engines without chunking do

All keep the rules of `admission` for memory.
"""

from __future__ import annotations

from drift_engine import wire
from drift_engine.scheduling import auto, fused, mux, prefill_first
from drift_engine.scheduling.plans import Plan
from drift_engine.scheduling.predictions import Predictions
from drift_engine.scheduling.views import State


def plan(mode: wire.Mode, state: State, latency: Predictions, now_s: float) -> Plan:
    """What the lanes that are free do next."""
    match mode:
        case wire.Mode.AUTO:
            return auto.plan(state, latency, now_s)
        case wire.Mode.MUX:
            return mux.plan(state, latency, now_s)
        case wire.Mode.FUSED:
            return fused.plan(state, latency)
        case wire.Mode.PREFILL_FIRST:
            return prefill_first.plan(state)
