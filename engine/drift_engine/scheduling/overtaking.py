"""Whether the first waiting request is prefilled before one that is under way.

It would be late behind it and makes its target before it; the one under way makes its own all the same, or is late
anyway but has not aged. One that is late already goes first where it takes next to nothing of what is left, or has
aged: it stands before those in the line that could still overtake. A longer one never goes first, so that prefills
are not torn to pieces. What is under way is the whole prompt that is left, not only the pass at work: a prompt of
100,000 tokens takes seconds in pieces that each take a fraction of one. Times are those beside the decode rows of the
moment.
"""

from __future__ import annotations

from drift_engine.latency.loads import Load
from drift_engine.scheduling import admission, order
from drift_engine.scheduling.admission import Room
from drift_engine.scheduling.predictions import Predictions
from drift_engine.scheduling.views import Cut, Running, State

SMALL_SHARE = 0.1
"""Of what is left of a prompt, the most that one which is late already may take and go first. Without it a prompt of
900 tokens, late by 30 ms, waited 7 s behind one of 100,000, and three others behind it (simulated, 8B on an H200)."""

MARGIN_SHARE = 0.3
"""By so much of what is left may it take longer than predicted: others come and go before it as well. Simulated, 8B,
the conversation at 100 ms, mean of four rates from 0.95 to 1.1/s: 95.2 % of the requests keep the promise without a
margin, 96.2 % with 0.1 and 96.7 % with 0.3; a 34B model on the synthetic trace at 25 ms: 95.3, 95.5 and 95.4 %."""

MAX_INTERRUPTED = 3
"""Each holds the activations of a pass, 2 * max_step_tokens * hidden values: 67 MB for 2,048 tokens of an 8B model in
float32, 33 MB in bfloat16. Three let a short prompt through even where a medium one interrupted a long one."""


def between_layers(state: State, cut: Cut, latency: Predictions, now_s: float) -> bool:
    """Before what is left of the prefill that is cut, and of the prompts that it is a part of."""
    if len(state.lanes.cuts) > MAX_INTERRUPTED:
        return False
    flight, sms = state.lanes.flight, lane_sms(state, cut)
    left_s = cut_left_s(cut, sms, latency)
    if left_s is None:
        return False
    slowed = 1.0
    if flight is not None and cut.split is not None:
        slowed = _slowed_beside(cut.load, sms, flight.load, latency)
    return _before(state, left_s, cut.deadline_s, cut.aged_s, sms, slowed, latency, now_s)


def between_passes(
    state: State, room: Room, latency: Predictions, now_s: float, chunk_tokens: int | None = None
) -> bool:
    """Before the prompt whose next pass would begin now.

    `chunk_tokens` is the prefill of a pass that decode rows share; None: they have a lane of their own.
    """
    under_way = admission.prefilling(room)
    if not state.waiting or not under_way:
        return False
    lanes, request = state.lanes, under_way[-1]
    split = lanes.split if room.decoding and chunk_tokens is None else None
    sms = lanes.sms if split is None else split.prefill_sms
    left_s = prompt_left_s(request, sms, latency)
    if left_s is None:
        return False
    slowed = 1.0
    if chunk_tokens is not None:
        slowed = _slowed_by_rows(request, room.decode, chunk_tokens, sms, left_s, latency)
    elif split is not None:
        left = Load.prefill([(request.remaining_tokens, request.computed_tokens)])
        slowed = _slowed_beside(left, sms, room.decode, latency)
    aged_s = order.aged_s(request.arrival_s, request.deadline_s)
    return _before(state, left_s, request.deadline_s, aged_s, sms, slowed, latency, now_s)


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


def _slowed_beside(prefill: Load, sms: int, decode: Load, latency: Predictions) -> float:
    """How many times longer the prefill takes than alone, beside decode on the other lane."""
    alone_s, beside_s = latency.pass_s(prefill, sms), latency.beside_s(prefill, sms, decode)
    return beside_s / alone_s if alone_s and beside_s else 1.0


def _slowed_by_rows(
    request: Running, decode: Load, chunk_tokens: int, sms: int, left_s: float, latency: Predictions
) -> float:
    """How many times longer than alone the prompt takes in chunks, each in a pass with the decode rows."""
    tokens = max(1, min(chunk_tokens, request.remaining_tokens))
    chunk_s = latency.pass_s(decode + Load.prefill([(tokens, request.computed_tokens)]), sms)
    if not chunk_s or not left_s:
        return 1.0
    return max(1.0, chunk_s * request.remaining_tokens / tokens / left_s)


def _before(
    state: State,
    left_s: float,
    deadline_s: float,
    aged_s: float,
    sms: int,
    slowed: float,
    latency: Predictions,
    now_s: float,
) -> bool:
    """`left_s` is the time of what is under way alone; it and the first waiting one take `slowed` times as long."""
    first = state.waiting[0]
    if now_s >= aged_s:
        return False
    own_s = first_s(state, sms, latency)
    if own_s is None or own_s >= left_s:
        return False
    ready_s, ends_s = now_s + own_s * slowed, now_s + left_s * slowed
    ends_behind_s = ends_s + own_s * slowed
    allowed = ends_behind_s <= deadline_s or ends_s > deadline_s
    if ready_s > first.deadline_s:
        aged = now_s >= order.aged_s(first.arrival_s, first.deadline_s)
        return aged or (allowed and own_s <= SMALL_SHARE * left_s)
    return allowed and ends_behind_s + MARGIN_SHARE * left_s * slowed > first.deadline_s
