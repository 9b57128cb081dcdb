"""Chunked prefill: decode rows and prefill chunks share a pass on the whole device.

An honest rival of sharing in space: other engines take one chunk size for all loads, here the chunk is the largest
one whose pass keeps the time that the decode rows have, found anew for every pass from what was measured on this
machine. The largest is the best: a pass reads all weights whatever its chunk, so fewer passes prefill a prompt
sooner, and its attention costs the same in whatever pieces (`tests/engine/test_planner_fused.py` tries all sizes).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from drift_engine import wire
from drift_engine.latency.loads import Load
from drift_engine.scheduling import admission, lookahead, overtaking, slack
from drift_engine.scheduling.admission import Admitted, Room
from drift_engine.scheduling.plans import Chunk, Plan
from drift_engine.scheduling.predictions import Predictions
from drift_engine.scheduling.views import State, Waiting

MIN_CHUNK_TOKENS = 32
"""Prefill always moves by this much, or a target that no chunk can meet would starve it."""

FIRST_CHUNK_TOKENS = 256
"""Budget while nothing is known of the model's speed."""

SLACK_SHARE = 0.9
"""Share of its time that a pass may fill; the rest covers emission and an underestimate."""

FILL_SHARE = 0.95
"""That nearly all passes may fill, as `splits.FILL_SHARE`: where passes last longer than predicted now and then, the
chunk is as large as the promise on every gap allows, not as the usual pass does."""

Pieces = Sequence[tuple[int, int]]
"""New and reused tokens of each prompt that is prefilled next, in order."""


def plan(
    state: State, room: Room, latency: Predictions, now_s: float, budget_tokens: int | None = None
) -> Plan:
    """Decode rows always; the rest of the pass's budget goes to prefills, to those under way first but for those that
    overtake them.

    `budget_tokens` is the budget where it is known already.
    """
    step_s = allowed_s(state, room, latency, now_s)
    if budget_tokens is None:
        budget_tokens = find_budget_tokens(state, room.decode, step_s, pending(state, room), latency)
    admitted: tuple[str, ...] = ()
    chunks: tuple[Chunk, ...] = ()
    if (first := overtaking.between_passes(state, room, latency, now_s, budget_tokens)) is not None:
        admitted, chunks = _overtaken(state, room, first, step_s, latency, now_s)
    if not chunks:
        admitted, chunks = admission.prefill(state, room, budget_tokens, newest_first=True)
    return Plan(
        wire.Mode.FUSED,
        preempt=room.preempted,
        admit=admitted,
        decode=tuple([request.request_id for request in room.decoding]),
        prefill=chunks,
        steps=1 if chunks else lookahead.steps(state, room),
    )


def _overtaken(
    state: State, room: Room, first: Waiting, step_s: float, latency: Predictions, now_s: float
) -> Admitted:
    """A chunk of who goes first and, where its first token has the time, what the pass has room for of those that it
    goes before: short prompts that come one after the other would leave most of their passes empty."""
    others = replace(state, waiting=())
    pieces = [(first.tokens - first.cached_tokens, first.cached_tokens), *pending(others, room)]
    budget_tokens = find_budget_tokens(state, room.decode, step_s, pieces, latency)
    admitted, chunks = admission.prefill_alone(state, room, first, budget_tokens)
    left_tokens = budget_tokens - sum([chunk.tokens for chunk in chunks])
    if admitted and left_tokens > 0 and room.decoding and not now_s < first.deadline_s < now_s + step_s:
        chunks += admission.prefill(others, room, left_tokens, newest_first=True)[1]
    return admitted, chunks


def allowed_s(state: State, room: Room, latency: Predictions, now_s: float) -> float:
    """That a step over the room's decode rows may take; infinity where there are none."""
    if not room.decoding:
        return math.inf
    fastest_s = latency.pass_s(room.decode, state.lanes.sms) or 0.0  # alone on the whole device
    return slack.allowed_s(room.decoding, now_s, fastest_s, pressed=state.pressed)


def pending(state: State, room: Room) -> list[tuple[int, int]]:
    """The prefill that is next, at most one pass of it."""
    budget, pieces = state.limits.max_step_tokens, []
    pairs = [(r.remaining_tokens, r.computed_tokens) for r in reversed(admission.prefilling(room))]
    pairs += [(w.tokens - w.cached_tokens, w.cached_tokens) for w in state.waiting]
    for tokens, reused in pairs:
        if budget <= 0:
            break
        pieces.append((min(tokens, budget), reused))
        budget -= tokens
    return pieces


def largest_chunk_tokens(
    decode: Load, pieces: Pieces, allowed_s: float, ceiling_tokens: int, sms: int, latency: Predictions
) -> int | None:
    """The most tokens of `pieces` that share a pass with `decode` and leave some of the time that is allowed, at
    least MIN_CHUNK_TOKENS. None where nothing is known of the model's speed."""
    time_s = allowed_s * min(SLACK_SHARE, FILL_SHARE / latency.fused_factor)

    def pass_s(tokens: int) -> float | None:
        return latency.pass_s(beside(decode, pieces, tokens), sms)

    if pass_s(MIN_CHUNK_TOKENS) is None:
        return None
    low = MIN_CHUNK_TOKENS
    high = max(MIN_CHUNK_TOKENS, min(ceiling_tokens, sum([new for new, _ in pieces])))
    if (pass_s(high) or 0.0) <= time_s:
        return max(low, ceiling_tokens)
    while low < high:
        middle = (low + high + 1) // 2
        if (pass_s(middle) or 0.0) <= time_s:
            low = middle
        else:
            high = middle - 1
    return low


def beside(decode: Load, pieces: Pieces, tokens: int) -> Load:
    """The first `tokens` of the pieces in one pass with `decode`."""
    new_tokens = squared = reusing = rows = 0
    for new, reused in pieces:
        if new > tokens - new_tokens:
            new = tokens - new_tokens
        rows += 1
        new_tokens += new
        squared += new * new
        reusing += new * reused
        if new_tokens == tokens:
            break
    return Load(decode.decode_rows, decode.decode_context_tokens, new_tokens, squared, reusing, rows)


def find_budget_tokens(
    state: State, decode: Load, allowed_s: float, pieces: Pieces, latency: Predictions
) -> int:
    """Prefill tokens of the next pass: the largest chunk of `pieces` that the decode rows allow."""
    limits, rows = state.limits, decode.decode_rows
    ceiling = limits.max_step_tokens - rows
    if limits.chunk_tokens is not None:
        return max(1, min(limits.chunk_tokens - rows, ceiling))
    if not rows:
        return ceiling
    if not pieces:
        return 0
    found = largest_chunk_tokens(decode, pieces, allowed_s, ceiling, state.lanes.sms, latency)
    return min(FIRST_CHUNK_TOKENS, ceiling) if found is None else found
