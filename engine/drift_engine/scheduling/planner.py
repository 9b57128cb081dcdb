"""`plan(state, latency, now) -> Plan`: the one decision of a step, by the node's mode.

fused          decode rows and prefill chunks share a pass; the chunk is what the tightest TBT target allows
prefill-first  baseline: whole prompts before any decode, as engines without chunking do

Both keep the same rules for memory: decode rows that need a page come first; when free and evictable pages do
not suffice, the lowest-priority, latest-arrived request is preempted (it resumes from its cached prefix); a
request is admitted only when all of its prompt fits beside what the running ones still need.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from drift_engine import wire
from drift_engine.scheduling.latency import LatencyModel
from drift_engine.scheduling.plans import Chunk, Plan
from drift_engine.scheduling.views import Memory, Running, State, Waiting

MIN_CHUNK_TOKENS = 32
"""Prefill always moves by this much, or a target that no chunk can meet would starve it."""

FIRST_CHUNK_TOKENS = 256
"""Budget while the node has not measured a prefill yet."""

SLACK_SHARE = 0.9
"""Share of the TBT target that a fused pass may fill; the rest covers emission and an underestimate."""

Planner = Callable[[State, LatencyModel, float], Plan]


def plan(mode: wire.Mode, state: State, latency: LatencyModel, now_s: float) -> Plan:
    """The next pass of a node in `mode`."""
    return _PLANNERS[mode](state, latency, now_s)


def plan_fused(state: State, latency: LatencyModel, now_s: float) -> Plan:
    """Decode rows always; the rest of the pass's budget goes to prefills in order of admission."""
    room = _make_room(state)
    decoding = [request for request in room.running if request.remaining_tokens == 1]
    admitted, chunks = _prefill(state, room, _chunk_budget(state, decoding, latency))
    return Plan(
        wire.Mode.FUSED,
        preempt=room.preempted,
        admit=admitted,
        decode=tuple(request.request_id for request in decoding),
        prefill=chunks,
    )


def plan_prefill_first(state: State, latency: LatencyModel, now_s: float) -> Plan:
    """Whole prompts as long as any waits, decode rows otherwise."""
    room = _make_room(state)
    admitted, chunks = _prefill(state, room, state.limits.max_step_tokens)
    decoding = () if chunks else tuple(r.request_id for r in room.running if r.remaining_tokens == 1)
    return Plan(
        wire.Mode.PREFILL_FIRST,
        preempt=room.preempted,
        admit=admitted,
        decode=decoding,
        prefill=chunks,
    )


_PLANNERS: dict[wire.Mode, Planner] = {
    wire.Mode.FUSED: plan_fused,
    wire.Mode.PREFILL_FIRST: plan_prefill_first,
}


@dataclass(frozen=True, slots=True)
class _Room:
    """What preemption left: the running requests that stay, and the pages that prefills may take."""

    preempted: tuple[str, ...]
    running: tuple[Running, ...]
    pages: int


def _make_room(state: State) -> _Room:
    """Preempts until every decode row's next token has a page, and a prefill that is alone can move."""
    memory = state.memory
    available = memory.pages_free + memory.pages_evictable
    keep = list(state.running)
    preempted: list[str] = []
    while len(keep) > 1 and len(keep) > available and _pages_to_move(keep, memory) > available:
        victim = min(keep, key=lambda r: (r.priority, -r.arrival_s))
        keep.remove(victim)
        preempted.append(victim.request_id)
        available += memory.pages(victim.computed_tokens)
    return _Room(tuple(preempted), tuple(keep), available - _decode_pages(keep, memory))


def _decode_pages(running: Sequence[Running], memory: Memory) -> int:
    return sum(memory.growth(r.computed_tokens, 1) for r in running if r.remaining_tokens == 1)


def _pages_to_move(running: Sequence[Running], memory: Memory) -> int:
    """Pages without which the next pass could not serve every decode row, or any row at all."""
    if any(r.remaining_tokens == 1 for r in running):
        return _decode_pages(running, memory)
    return min((memory.growth(r.computed_tokens, 1) for r in running), default=0)


def _prefill(state: State, room: _Room, budget: int) -> tuple[tuple[str, ...], tuple[Chunk, ...]]:
    """Chunks within `budget` tokens: first of the running requests, then of newly admitted ones.

    Nobody is admitted in a step that had to preempt.
    """
    memory, available = state.memory, room.pages
    admitted: list[str] = []
    chunks: list[Chunk] = []
    for running in room.running:
        if running.remaining_tokens == 1:
            continue
        held = memory.pages(running.computed_tokens)
        fits = (held + max(available, 0)) * memory.page_tokens - running.computed_tokens
        tokens = min(running.remaining_tokens, budget, fits)
        if tokens > 0:
            chunks.append(Chunk(running.request_id, tokens))
            budget -= tokens
            available -= memory.growth(running.computed_tokens, tokens)
    if not room.preempted:
        for waiting in _admissible(state, room):
            if budget <= 0:
                break
            tokens = min(waiting.tokens - waiting.cached_tokens, budget)
            admitted.append(waiting.request_id)
            chunks.append(Chunk(waiting.request_id, tokens))
            budget -= tokens
    return tuple(admitted), tuple(chunks)


def _admissible(state: State, room: _Room) -> Iterator[Waiting]:
    """Waiting requests by priority, then arrival, while each one's whole prompt fits.

    Cached pages that running requests hold cost nothing; idle ones leave the evictable. One page for every
    running request stays free: the first decode step after an admission must not preempt. A request that
    would run alone is always admitted; its length was checked against the whole cache when it came.
    """
    memory = state.memory
    left = room.pages - sum(
        memory.growth(r.computed_tokens, r.remaining_tokens) for r in room.running if r.remaining_tokens > 1
    )
    count = len(room.running)
    for request in sorted(state.waiting, key=lambda w: (-w.priority, w.arrival_s)):
        pages = memory.pages(request.tokens + 1) - memory.pages(request.cached_tokens) + request.idle_pages
        if count >= state.limits.max_running or (count and pages + count > left):
            return
        count += 1
        left -= pages
        yield request


def _chunk_budget(state: State, decoding: Sequence[Running], latency: LatencyModel) -> int:
    """Prefill tokens of the next fused pass: the largest chunk that the tightest TBT target allows."""
    limits = state.limits
    ceiling = limits.max_step_tokens - len(decoding)
    if limits.chunk_tokens is not None:
        return max(1, min(limits.chunk_tokens - len(decoding), ceiling))
    if not decoding:
        return ceiling
    if latency.prefill_s(MIN_CHUNK_TOKENS, 0) is None:
        return min(FIRST_CHUNK_TOKENS, ceiling)
    decode_s = latency.decode_s(len(decoding), sum(r.computed_tokens for r in decoding)) or 0.0
    slack_s = min(request.tbt_target_s for request in decoding) * SLACK_SHARE - decode_s
    low, high = MIN_CHUNK_TOKENS, max(MIN_CHUNK_TOKENS, ceiling)
    while low < high:
        middle = (low + high + 1) // 2
        if (latency.prefill_s(middle, 0) or 0.0) <= slack_s:
            low = middle
        else:
            high = middle - 1
    return low
