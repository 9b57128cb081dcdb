"""`plan(mode, state, latency, now) -> Plan`: the one decision of a step, by the node's mode.

auto           whichever of the next two serves the present load better
mux            decode on its part of the device, prefill by layers on the rest
fused          decode rows and prefill chunks share a pass; the chunk is the largest that keeps the decode rows' time
overlap        as mux, on two lanes that share all SMs
muxwise        baseline: MuxWise's policy on two lanes
batch-table    baseline: SGLang's, the split looked up by the number of decode rows
prefill-first  baseline: whole prompts before any decode, as engines without chunking do
solo-prefill   baseline: the same, one prompt at a time
solo-decode    baseline: no prefill while anything decodes

All keep the rules of `admission` for memory.
"""

from __future__ import annotations

from dataclasses import replace

from drift_engine import wire
from drift_engine.scheduling import admission, auto, fused, order, sharing, solo, two_lanes
from drift_engine.scheduling.batch_table import BATCH_TABLE
from drift_engine.scheduling.mux import MUX, OVERLAP
from drift_engine.scheduling.muxwise import MUXWISE
from drift_engine.scheduling.plans import Plan
from drift_engine.scheduling.predictions import Predictions
from drift_engine.scheduling.views import State


def plan(mode: wire.Mode, state: State, latency: Predictions, now_s: float) -> Plan:
    """What the lanes that are free do next."""
    if state.waiting and mode not in order.FIRST_COME:
        state = replace(state, waiting=sharing.serialised(state, now_s))
    room = admission.make_room(state)
    match mode:
        case wire.Mode.AUTO:
            return auto.plan(state, room, latency, now_s)
        case wire.Mode.MUX:
            return two_lanes.plan(MUX, state, room, latency, now_s)
        case wire.Mode.FUSED:
            return fused.plan(state, room, latency, now_s)
        case wire.Mode.OVERLAP:
            return two_lanes.plan(OVERLAP, state, room, latency, now_s)
        case wire.Mode.MUXWISE:
            return two_lanes.plan(MUXWISE, state, room, latency, now_s)
        case wire.Mode.BATCH_TABLE:
            return two_lanes.plan(BATCH_TABLE, state, room, latency, now_s)
        case wire.Mode.PREFILL_FIRST:
            return solo.prefill_first(state, room)
        case wire.Mode.SOLO_PREFILL:
            return solo.solo_prefill(state, room)
        case wire.Mode.SOLO_DECODE:
            return solo.solo_decode(state, room, now_s)
