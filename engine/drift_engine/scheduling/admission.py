"""Who may hold KV pages: the rules of memory that every mode keeps.

Decode rows that need a page come first; when free and evictable pages do not suffice, the lowest-priority,
latest-arrived request that no lane works on is preempted (it resumes from its cached prefix); a request is admitted
only when all of its prompt fits beside what the running ones still need.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from drift_engine.latency.loads import Load
from drift_engine.scheduling import pressure
from drift_engine.scheduling.plans import Chunk
from drift_engine.scheduling.views import Memory, Running, State, Waiting


@dataclass(frozen=True, slots=True)
class Room:
    """What preemption left: the running requests that stay, those of them that decode, their load, and the pages that
    prefills may take."""

    preempted: tuple[str, ...]
    running: tuple[Running, ...]
    decoding: tuple[Running, ...]
    decode: Load
    pages: int


def make_room(state: State) -> Room:
    """Preempts until every decode row's next token has a page, and a prefill that is alone can move."""
    memory = state.memory
    available = memory.pages_free + memory.pages_evictable
    keep: Sequence[Running] = state.running
    preempted: list[str] = []
    while len(keep) > 1 and len(keep) > available and _pages_to_move(keep, memory) > available:
        victim = min(keep, key=lambda r: (r.priority, -r.arrival_s))
        keep = [request for request in keep if request is not victim]
        preempted.append(victim.request_id)
        available += memory.pages(victim.computed_tokens)
    decoding = tuple([request for request in keep if request.remaining_tokens == 1])
    context_tokens = sum([request.computed_tokens for request in decoding]) + len(decoding)
    return Room(
        tuple(preempted),
        tuple(keep),
        decoding,
        Load.decode(len(decoding), context_tokens),
        available - _decode_pages(decoding, memory),
    )


Admitted = tuple[tuple[str, ...], tuple[Chunk, ...]]
"""Who is admitted, and chunks of them and of running requests."""


def prefill_alone(state: State, room: Room, request: Waiting, budget_tokens: int) -> Admitted:
    """This waiting request, if it fits beside what those under way still need."""
    memory, under_way = state.memory, prefilling(room)
    needed = sum(memory.growth(r.computed_tokens, r.remaining_tokens) for r in under_way)
    needed += sum(memory.pages(cut.rest.new_tokens) for cut in state.lanes.cuts)
    alone = replace(room, running=room.decoding, pages=room.pages - needed)
    state = replace(state, waiting=(request,), in_flight=state.in_flight + len(under_way))
    return prefill(state, alone, budget_tokens)


def prefill(state: State, room: Room, budget_tokens: int, *, newest_first: bool = False) -> Admitted:
    """Chunks within the budget: first of the running requests, then of the admitted ones.

    With `newest_first` a running request that was admitted later goes first: it was let in before the others.
    Nobody is admitted in a step that had to preempt.
    """
    memory, available, budget = state.memory, room.pages, budget_tokens
    admitted: list[str] = []
    chunks: list[Chunk] = []
    under_way = prefilling(room)
    for running in reversed(under_way) if newest_first else under_way:
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


def prefilling(room: Room) -> Sequence[Running]:
    """The running requests whose prompt is not in yet, by admission."""
    if len(room.running) == len(room.decoding):
        return ()
    return [request for request in room.running if request.remaining_tokens > 1]


def _decode_pages(decoding: Sequence[Running], memory: Memory) -> int:
    # One token more needs a page where those before fill theirs; every step asks it of every row.
    page_tokens = memory.page_tokens
    return sum([request.computed_tokens % page_tokens == 0 for request in decoding])


def _pages_to_move(running: Sequence[Running], memory: Memory) -> int:
    """Pages without which the next pass could not serve every decode row, or any row at all."""
    if decoding := [request for request in running if request.remaining_tokens == 1]:
        return _decode_pages(decoding, memory)
    return min((memory.growth(r.computed_tokens, 1) for r in running), default=0)


def _admissible(state: State, room: Room) -> Iterator[Waiting]:
    """Waiting requests in their order, while each one's whole prompt fits.

    Cached pages that running requests hold cost nothing; idle ones leave the evictable. Some pages for every
    running request stay free (`pressure.kept_pages`): the first decode step after an admission must not preempt. A
    request that would run alone is always admitted; its length was checked against the whole cache when it came.
    """
    memory = state.memory
    left = room.pages - sum(
        memory.growth(request.computed_tokens, request.remaining_tokens) for request in prefilling(room)
    )
    count, kept = len(room.running) + state.in_flight, pressure.kept_pages(state.pressed)
    for request in state.waiting:
        pages = memory.pages(request.tokens + 1) - memory.pages(request.cached_tokens) + request.idle_pages
        if count >= state.limits.max_running or (count and pages + count * kept > left):
            return
        count += 1
        left -= pages
        yield request
