"""The router's own queue, as data: requests that no node can take in time yet.

Ordered by priority, then by deadline, then by arrival, and bounded in number. What to do with a request that may not
enter or has waited too long is the caller's.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Hashable
from typing import Generic, TypeVar

LONGEST_RETRY_S = 60
"""Clients that are told more give up or forget. Estimate."""

PACE_S = 10.0
"""Over which the line's pace is averaged: some requests' lifetimes. Estimate."""

_COMPACT = 64
"""Entries of removed requests that may stay, beside as many as there are waiting ones."""

K = TypeVar("K", bound=Hashable)


class Line(Generic[K]):
    """At most `limit` requests. O(log n) for all but a look at the length."""

    def __init__(self, limit: int) -> None:
        if limit < 0:
            raise ValueError(f"limit: {limit} is below 0")
        self.limit = limit
        self._heap: list[tuple[int, float, int, K]] = []  # (-priority, deadline, number, key)
        self._numbers: dict[K, int] = {}  # of who waits
        self._number = 0
        self._served, self._served_at_s = 0.0, 0.0  # lately

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, key: K) -> bool:
        return key in self._numbers

    def add(self, key: K, deadline_s: float, priority: int) -> bool:
        """False: the line is full. A key may wait once."""
        assert key not in self._numbers, f"{key!r} waits already"
        if len(self._numbers) >= self.limit:
            return False
        self._number += 1
        heapq.heappush(self._heap, (-priority, deadline_s, self._number, key))
        self._numbers[key] = self._number
        return True

    def peek(self) -> K | None:
        """Who is served next."""
        while self._heap:
            _, _, number, key = self._heap[0]
            if self._numbers.get(key) == number:
                return key
            heapq.heappop(self._heap)
        return None

    def pop(self) -> K | None:
        """Takes out who is served next; None where nobody waits."""
        key = self.peek()
        if key is not None:
            heapq.heappop(self._heap)
            del self._numbers[key]
        return key

    def remove(self, key: K) -> bool:
        """Whether it waited: clients may go away at any time."""
        if self._numbers.pop(key, None) is None:
            return False
        if len(self._heap) > 2 * len(self._numbers) + _COMPACT:
            self._heap = [entry for entry in self._heap if self._numbers.get(entry[3]) == entry[2]]
            heapq.heapify(self._heap)
        return True

    def served(self, now_s: float) -> None:
        """One that was taken out found a node."""
        self._served = 1.0 + self._lately(now_s)
        self._served_at_s = now_s

    def _lately(self, now_s: float) -> float:
        return self._served * math.exp(-max(0.0, now_s - self._served_at_s) / PACE_S)

    def retry_after_s(self, ttft_s: float, budget_s: float, now_s: float) -> int:
        """Whole seconds until a refused request had better come back: when the best node, now at `ttft_s`, has worked
        off what it is over budget, and those that wait were served at the line's pace, where it has one.
        """
        wait_s = max(0.0, ttft_s - budget_s)
        if (lately := self._lately(now_s)) >= 1.0:
            wait_s += len(self) * PACE_S / lately
        return min(LONGEST_RETRY_S, max(1, math.ceil(wait_s)))
