"""Chunked prefill: decode rows and prefill chunks share a pass on the whole device."""

from __future__ import annotations

from collections.abc import Sequence

from drift_engine import wire
from drift_engine.latency.loads import Load
from drift_engine.scheduling import admission, lookahead
from drift_engine.scheduling.plans import Plan
from drift_engine.scheduling.predictions import Predictions
from drift_engine.scheduling.views import Running, State

MIN_CHUNK_TOKENS = 32
"""Prefill always moves by this much, or a target that no chunk can meet would starve it."""

FIRST_CHUNK_TOKENS = 256
"""Budget while nothing is known of the model's speed."""

SLACK_SHARE = 0.9
"""Share of the TBT target that a pass may fill; the rest covers emission and an underestimate."""


def plan(state: State, latency: Predictions) -> Plan:
    """Decode rows always; the rest of the pass's budget goes to prefills in order of admission."""
    room = admission.make_room(state)
    decoding = room.decoding
    admitted, chunks = admission.prefill(state, room, _budget_tokens(state, decoding, latency))
    return Plan(
        wire.Mode.FUSED,
        preempt=room.preempted,
        admit=admitted,
        decode=tuple(request.request_id for request in decoding),
        prefill=chunks,
        steps=1 if chunks else lookahead.steps(state, room),
    )


def decode_load(decoding: Sequence[Running]) -> Load:
    return Load.decode(len(decoding), sum(request.computed_tokens + 1 for request in decoding))


def largest_chunk_tokens(
    decode: Load, reused_tokens: int, slack_s: float, ceiling_tokens: int, sms: int, latency: Predictions
) -> int | None:
    """The most prefill tokens that share a pass with `decode` within the slack, at least MIN_CHUNK_TOKENS.

    None where nothing is known of the model's speed.
    """

    def pass_s(tokens: int) -> float | None:
        return latency.pass_s(decode + Load.prefill([(tokens, reused_tokens)]), sms)

    if pass_s(MIN_CHUNK_TOKENS) is None:
        return None
    low, high = MIN_CHUNK_TOKENS, max(MIN_CHUNK_TOKENS, ceiling_tokens)
    while low < high:
        middle = (low + high + 1) // 2
        if (pass_s(middle) or 0.0) <= slack_s:
            low = middle
        else:
            high = middle - 1
    return low


def reused_tokens(state: State) -> int:
    """Context of the prefill that is next: what a chunk of it attends to."""
    for running in state.running:
        if running.remaining_tokens > 1:
            return running.computed_tokens
    return state.waiting[0].cached_tokens if state.waiting else 0


def _budget_tokens(state: State, decoding: Sequence[Running], latency: Predictions) -> int:
    """Prefill tokens of the next pass: the largest chunk that the tightest TBT target allows."""
    limits = state.limits
    ceiling = limits.max_step_tokens - len(decoding)
    if limits.chunk_tokens is not None:
        return max(1, min(limits.chunk_tokens - len(decoding), ceiling))
    if not decoding:
        return ceiling
    slack_s = min(request.tbt_target_s for request in decoding) * SLACK_SHARE
    found = largest_chunk_tokens(
        decode_load(decoding), reused_tokens(state), slack_s, ceiling, state.lanes.sms, latency
    )
    return min(FIRST_CHUNK_TOKENS, ceiling) if found is None else found
