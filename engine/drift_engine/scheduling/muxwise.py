"""Baseline: the policy of MuxWise (arXiv 2504.14489 v3), what its dispatcher does and no more.

- Split (3.4): the best fit, the fewest decode SMs whose worst-case step keeps the TBT target, whatever the last split
  was. Worst case (3.3) is a prediction times the slowdown of a cell; theirs is the cell's maximum over hours of
  profiling, ours the 95th percentile that the guard follows.
- Order (3.4): first come, first served, as many prompts in a prefill as a pass holds.
- Layers (3.2): each decode step launches N_PL = ceil(T_decode * layers / T_prefill).
- Preemption (3.4): one level deep, and only if the interrupted prefill still makes its TTFT target.
"""

from __future__ import annotations

from drift_engine import wire
from drift_engine.latency.loads import Load
from drift_engine.scheduling import admission, overtaking, slack, splits, two_lanes
from drift_engine.scheduling.admission import Room
from drift_engine.scheduling.predictions import Predictions
from drift_engine.scheduling.two_lanes import Chosen, Policy
from drift_engine.scheduling.views import Cut, State, Waiting


def split(state: State, room: Room, prefill: Load, latency: Predictions, now_s: float) -> Chosen:
    """Nothing known counts as kept: the first step tells."""
    every = ((candidate, 1.0) for candidate in state.lanes.splits)
    found = splits.fewest(state, every, room.decode, slack.promised_s(room.decoding), prefill, latency)
    return Chosen(found, found)


def interrupts(state: State, cut: Cut, latency: Predictions, now_s: float) -> Waiting | None:
    """The first, unless it takes longer than what is left of the other: it gains nothing by going before it."""
    if not state.waiting or len(state.lanes.cuts) > 1:
        return None
    sms = overtaking.lane_sms(state, cut)
    left_s = overtaking.cut_left_s(cut, sms, latency)
    return _first(state, left_s, cut.deadline_s, sms, latency, now_s)


def overtakes(state: State, room: Room, latency: Predictions, now_s: float) -> Waiting | None:
    """The paper's prefill is one pass however long its prompt is; here it has several, and goes on being interrupted
    between them."""
    under_way = admission.prefilling(room)
    if not state.waiting or len(under_way) != 1:
        return None
    (request,), sms = under_way, state.lanes.sms
    left_s = overtaking.prompt_left_s(request, sms, latency)
    return _first(state, left_s, request.deadline_s, sms, latency, now_s)


def _first(
    state: State, left_s: float | None, deadline_s: float, sms: int, latency: Predictions, now_s: float
) -> Waiting | None:
    first = state.waiting[0]
    own_s = overtaking.alone_s(first, sms, latency)
    if left_s is None or own_s is None:
        return None
    return first if own_s < left_s and now_s + own_s + left_s <= deadline_s else None


MUXWISE = Policy(
    wire.Mode.MUXWISE, split, two_lanes.first_come_tokens, interrupts, overtakes=overtakes, carries=False
)
