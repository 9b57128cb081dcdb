"""What the planner sees: an immutable picture of the requests and the memory of a node."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request without KV pages: new, or preempted."""

    request_id: str
    tokens: int  # to be in the KV cache before its next token can be drawn
    cached_tokens: int  # of those, reusable from the prefix cache right now
    idle_pages: int  # of the reusable pages, those that count as evictable until the request takes them
    arrival_s: float
    priority: int = 0


class Running(msgspec.Struct, frozen=True, gc=False):
    """A request with KV pages. One remaining token is a decode row, more are a prefill."""

    request_id: str
    computed_tokens: int
    remaining_tokens: int
    arrival_s: float
    tbt_target_s: float
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Memory:
    """The KV cache's pages. `evictable` pages hold cached prefixes that nobody uses."""

    page_tokens: int
    pages_total: int
    pages_free: int
    pages_evictable: int

    def pages(self, tokens: int) -> int:
        """Pages that hold `tokens` tokens."""
        return -(-tokens // self.page_tokens)

    def growth(self, computed_tokens: int, new_tokens: int) -> int:
        """Pages to add so that `new_tokens` more fit behind `computed_tokens`."""
        return self.pages(computed_tokens + new_tokens) - self.pages(computed_tokens)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that the node was started with."""

    max_running: int
    chunk_tokens: int | None  # a fixed budget of a fused step; None: from the slack
    max_step_tokens: int  # what the executor's buffers hold


@dataclass(frozen=True, slots=True)
class State:
    """Waiting requests in order of arrival, running ones in order of admission."""

    waiting: tuple[Waiting, ...]
    running: tuple[Running, ...]
    memory: Memory
    limits: Limits

    @property
    def decoding(self) -> tuple[Running, ...]:
        return tuple(request for request in self.running if request.remaining_tokens == 1)

    @property
    def prefilling(self) -> tuple[Running, ...]:
        return tuple(request for request in self.running if request.remaining_tokens > 1)
