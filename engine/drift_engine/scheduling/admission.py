"""Who may hold KV pages: the rules of memory that every mode keeps.

Decode rows that need a page come first; when free and evictable pages do not suffice, the lowest-priority,
latest-arrived request that no lane works on is preempted (it resumes from its cached prefix); a request is admitted
only when all of its prompt fits beside what the running ones still need.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from drift_engine.scheduling.plans import Chunk
from drift_engine.scheduling.views import Memory, Running, State, Waiting


@dataclass(frozen=True, slots=True)
class Room:
    """What preemption left: the running requests that stay, and the pages that prefills may take."""

    preempted: tuple[str, ...]
    running: tuple[Running, ...]
    pages: int

    @property
    def decoding(self) -> tuple[Running, ...]:
        return tuple(request for request in self.running if request.remaining_tokens == 1)


def make_room(state: State) -> Room:
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
    return Room(tuple(preempted), tuple(keep), available - _decode_pages(keep, memory))


def prefill(state: State, room: Room, budget_tokens: int) -> tuple[tuple[str, ...], tuple[Chunk, ...]]:
    """Who is admitted, and chunks within the budget: first of the running requests, then of the admitted ones.

    Nobody is admitted in a step that had to preempt.
    """
    memory, available, budget = state.memory, room.pages, budget_tokens
    admitted: list[str] = []
    chunks: list[Chunk] = []
    for running in room.running:
        if running.remaining_tokens == 1:
            continue
        held = memory.pages(running.computed_tokens)
        fits = (held + max(available, 0)) * memory.page_tokens - running.computed_tokens
        tokens = min(running.remaining_tokens, budget, fits)
        if tokens > 0:
            chunks.append(Chunk(running.request_id, tokens, running.computed_tokens))
            budget -= tokens
            available -= memory.growth(running.computed_tokens, tokens)
    if not room.preempted:
        for waiting in _admissible(state, room):
            if budget <= 0:
                break
            tokens = min(waiting.tokens - waiting.cached_tokens, budget)
            admitted.append(waiting.request_id)
            chunks.append(Chunk(waiting.request_id, tokens, waiting.cached_tokens))
            budget -= tokens
    return tuple(admitted), tuple(chunks)


def _decode_pages(running: Sequence[Running], memory: Memory) -> int:
    # One token more needs a page where those before fill theirs; every step asks it of every row.
    return sum(r.remaining_tokens == 1 and r.computed_tokens % memory.page_tokens == 0 for r in running)


def _pages_to_move(running: Sequence[Running], memory: Memory) -> int:
    """Pages without which the next pass could not serve every decode row, or any row at all."""
    if any(r.remaining_tokens == 1 for r in running):
        return _decode_pages(running, memory)
    return min((memory.growth(r.computed_tokens, 1) for r in running), default=0)


def _admissible(state: State, room: Room) -> Iterator[Waiting]:
    """Waiting requests in their order, while each one's whole prompt fits.

    Cached pages that running requests hold cost nothing; idle ones leave the evictable. One page for every
    running request stays free: the first decode step after an admission must not preempt. A request that
    would run alone is always admitted; its length was checked against the whole cache when it came.
    """
    memory = state.memory
    left = room.pages - sum(
        memory.growth(r.computed_tokens, r.remaining_tokens) for r in room.running if r.remaining_tokens > 1
    )
    count = len(room.running) + state.in_flight
    for request in state.waiting:
        pages = memory.pages(request.tokens + 1) - memory.pages(request.cached_tokens) + request.idle_pages
        if count >= state.limits.max_running or (count and pages + count > left):
            return
        count += 1
        left -= pages
        yield request
