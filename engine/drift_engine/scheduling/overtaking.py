"""Whether the first waiting request is prefilled before one that is under way.

It would be late behind it and makes its target before it; the one under way makes its own all the same, or is late
anyway but has not aged. A longer one never goes first, so that prefills are not torn to pieces. What is under way is
the whole prompt that is left, not only the pass at work: a prompt of 100,000 tokens takes seconds in pieces that each
take a fraction of one.
"""

from __future__ import annotations

from drift_engine.latency.loads import Load
from drift_engine.scheduling import admission, order
from drift_engine.scheduling.admission import Room
from drift_engine.scheduling.predictions import Predictions
from drift_engine.scheduling.views import Cut, Running, State

MAX_INTERRUPTED = 3
"""Each holds the activations of a pass, 2 * max_step_tokens * hidden values: 67 MB for 2,048 tokens of an 8B model in
float32, 33 MB in bfloat16. Three let a short prompt through even where a medium one interrupted a long one."""


def between_layers(state: State, cut: Cut, latency: Predictions, now_s: float) -> bool:
    """Before what is left of the prefill that is cut, and of the prompts that it is a part of."""
    if len(state.lanes.cuts) > MAX_INTERRUPTED:
        return False
    sms = lane_sms(state, cut)
    left_s = cut_left_s(cut, sms, latency)
    return left_s is not None and _before(state, left_s, cut.deadline_s, cut.aged_s, sms, latency, now_s)


def between_passes(state: State, room: Room, latency: Predictions, now_s: float) -> bool:
    """Before the prompt whose next pass would begin now."""
    under_way = admission.prefilling(room)
    if not state.waiting or not under_way:
        return False
    lanes, request = state.lanes, under_way[-1]
    sms = lanes.split.prefill_sms if room.decoding and lanes.split is not None else lanes.sms
    left_s = prompt_left_s(request, sms, latency)
    if left_s is None:
        return False
    aged_s = order.aged_s(request.arrival_s, request.deadline_s)
    return _before(state, left_s, request.deadline_s, aged_s, sms, latency, now_s)


def lane_sms(state: State, cut: Cut) -> int:
    """On which the prefill got its last layers."""
    return state.lanes.sms if cut.split is None else cut.split.prefill_sms


def cut_left_s(cut: Cut, sms: int, latency: Predictions) -> float | None:
    """Of its layers, and of its prompts behind it. None where nothing is known."""
    whole_s = latency.pass_s(cut.load, sms)
    if whole_s is None:
        return None
    rest_s = latency.pass_s(cut.rest, sms) or 0.0 if cut.rest else 0.0
    return whole_s * (cut.layers - cut.launched) / cut.layers + rest_s


def prompt_left_s(request: Running, sms: int, latency: Predictions) -> float | None:
    """Of a prompt between two passes."""
    return latency.pass_s(Load.prefill([(request.remaining_tokens, request.computed_tokens)]), sms)


def first_s(state: State, sms: int, latency: Predictions) -> float | None:
    """Of the first waiting request's prefill, alone."""
    first = state.waiting[0]
    return latency.pass_s(Load.prefill([(first.tokens - first.cached_tokens, first.cached_tokens)]), sms)


def _before(
    state: State,
    left_s: float,
    deadline_s: float,
    aged_s: float,
    sms: int,
    latency: Predictions,
    now_s: float,
) -> bool:
    first = state.waiting[0]
    if now_s >= aged_s:
        return False
    own_s = first_s(state, sms, latency)
    if own_s is None or own_s >= left_s:
        return False
    late_behind = now_s + left_s + own_s > first.deadline_s
    in_time_before = now_s + own_s <= first.deadline_s
    allowed = now_s + left_s + own_s <= deadline_s or now_s + left_s > deadline_s
    return late_behind and in_time_before and allowed
