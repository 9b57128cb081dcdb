"""Who of those that wait is prefilled before a prompt that is under way.

Who would be late behind it and makes its target before it, where the one under way makes its own all the same or is
late anyway. The same holds for those that stand before it in the line: a long one there hides no short one. Who is
late already goes first where it takes next to nothing of what is left. Nobody goes before a prompt that is firm
(`order`), and who is firm goes before any longer one. A longer one never goes first, so that prefills are not torn to
pieces.

What is under way is the whole prompt that is left, not only the pass at work: a prompt of 100,000 tokens takes
seconds in pieces that each take a fraction of one. Times are those beside the decode rows of the moment.
"""

from __future__ import annotations

import math

from drift_engine.latency.loads import Load
from drift_engine.scheduling import admission, order
from drift_engine.scheduling.admission import Room
from drift_engine.scheduling.predictions import Predictions
from drift_engine.scheduling.views import Cut, Running, State, Waiting

SMALL_SHARE = 0.1
"""Of what is left of a prompt, the most that one which is late already may take and go first. For whoever sent it: a
prompt of 900 tokens, late by 30 ms, waited 7 s behind one of 100,000. Of the requests that keep the promise it
changes nothing (`benchmarks/simulation/results/equal_rates.json`: 95.0 % without it and with 0.1, 94.9 % with
0.3)."""

MARGIN_SHARE = 0.3
"""By so much of what is left may it take longer than predicted: others come and go before it as well. Of the
requests 94.9 % keep the promise without a margin, 95.0 % with 0.3 and 94.9 % with 0.6 (there). Where only the first
of the line overtook it was worth more: 95.2 and 96.7 % on the conversation at 100 ms."""

MAX_INTERRUPTED = 3
"""Each holds the activations of a pass, 2 * max_step_tokens * hidden values: 67 MB for 2,048 tokens of an 8B model in
float32, 33 MB in bfloat16. Three let a short prompt through even where a medium one interrupted a long one."""

OVERTAKERS = 8
"""So many of the line are looked at: matching a prompt against the prefix cache is not free, and neither is a
prediction. With one, 91.1 % of the requests keep the promise, with four as many as with eight (there); more long
ones at the head of the line than there would hide the short ones again."""


def between_layers(state: State, cut: Cut, latency: Predictions, now_s: float) -> Waiting | None:
    """Who goes before what is left of the prefill that is cut, and of the prompts that it is a part of."""
    if not state.waiting or len(state.lanes.cuts) > MAX_INTERRUPTED:
        return None
    flight, sms = state.lanes.flight, lane_sms(state, cut)
    left_s = cut_left_s(cut, sms, latency)
    if left_s is None:
        return None
    slowed = 1.0
    if flight is not None and cut.split is not None:
        slowed = _slowed_beside(cut.load, sms, flight.load, latency)
    return _overtaker(state, left_s, cut.deadline_s, cut.firm_s, sms, slowed, latency, now_s)


def between_passes(
    state: State, room: Room, latency: Predictions, now_s: float, chunk_tokens: int | None = None
) -> Waiting | None:
    """Who goes before the prompt whose next pass would begin now.

    `chunk_tokens` is the prefill of a pass that decode rows share; None: they have a lane of their own.
    """
    under_way = admission.prefilling(room)
    if not state.waiting or not under_way:
        return None
    lanes, request = state.lanes, under_way[-1]
    split = lanes.split if room.decoding and chunk_tokens is None else None
    sms = lanes.sms if split is None else split.prefill_sms
    left_s = prompt_left_s(request, sms, latency)
    if left_s is None:
        return None
    slowed = 1.0
    if chunk_tokens is not None:
        slowed = _slowed_by_rows(request, room.decode, chunk_tokens, sms, left_s, latency)
    elif split is not None:
        left = Load.prefill([(request.remaining_tokens, request.computed_tokens)])
        slowed = _slowed_beside(left, sms, room.decode, latency)
    firm_s = order.firm_s(request.arrival_s, request.deadline_s)
    return _overtaker(state, left_s, request.deadline_s, firm_s, sms, slowed, latency, now_s)


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


def alone_s(request: Waiting, sms: int, latency: Predictions) -> float | None:
    """Of a waiting request's prefill, alone."""
    return latency.pass_s(
        Load.prefill([(request.tokens - request.cached_tokens, request.cached_tokens)]), sms
    )


def _slowed_beside(prefill: Load, sms: int, decode: Load, latency: Predictions) -> float:
    """How many times longer the prefill takes than alone, beside decode on the other lane."""
    own_s, beside_s = latency.pass_s(prefill, sms), latency.beside_s(prefill, sms, decode)
    return beside_s / own_s if own_s and beside_s else 1.0


def _slowed_by_rows(
    request: Running, decode: Load, chunk_tokens: int, sms: int, left_s: float, latency: Predictions
) -> float:
    """How many times longer than alone the prompt takes in chunks, each in a pass with the decode rows."""
    tokens = max(1, min(chunk_tokens, request.remaining_tokens))
    chunk_s = latency.pass_s(decode + Load.prefill([(tokens, request.computed_tokens)]), sms)
    if not chunk_s or not left_s:
        return 1.0
    return max(1.0, chunk_s * request.remaining_tokens / tokens / left_s)


def _overtaker(
    state: State,
    left_s: float,
    deadline_s: float,
    firm_s: float,
    sms: int,
    slowed: float,
    latency: Predictions,
    now_s: float,
) -> Waiting | None:
    """`left_s` is the time of what is under way alone; it and those that wait take `slowed` times as long."""
    if now_s >= firm_s:
        return None
    left_s *= slowed
    ends_s = line_ends_s = now_s + left_s
    spare_s = _spare_s(ends_s, deadline_s)
    for one in state.waiting[:OVERTAKERS]:
        own_s = alone_s(one, sms, latency)
        if own_s is None or one.priority < state.waiting[0].priority:
            return None
        own_s *= slowed
        firm = now_s >= order.firm_s(one.arrival_s, one.deadline_s)
        if own_s < left_s:
            if now_s + own_s <= one.deadline_s:
                late_behind = ends_s + own_s + MARGIN_SHARE * left_s > one.deadline_s
                if late_behind and own_s <= spare_s:
                    return one
            elif firm or own_s <= min(spare_s, SMALL_SHARE * left_s):
                return one
        if firm:
            return None
        line_ends_s += own_s
        spare_s = min(spare_s, _spare_s(line_ends_s, one.deadline_s))
    return None


def _spare_s(ends_s: float, deadline_s: float) -> float:
    """How much later it may end; as much as one likes where it is late anyway."""
    return deadline_s - ends_s if ends_s <= deadline_s else math.inf
