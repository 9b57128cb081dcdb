"""The core's requests: those that wait, in the order in which they are served, and those that run."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterator, Sequence

from drift_engine import wire
from drift_engine.cache import KvCache
from drift_engine.core.requests import Promise, Request
from drift_engine.scheduling import ahead, order, views

AHEAD_S = 0.1
"""For so long what goes before a new prompt counts as the same, if nobody comes: with 1,000 that wait it takes 1 ms
to find it, and routers ask four times a second."""


def _order(request: Request) -> tuple[int, float, str]:
    return (-request.priority, request.arrival_s, request.request_id)


class Queues:
    """Every request of the core is in exactly one of the two."""

    def __init__(self) -> None:
        self.waiting: list[Request] = []
        self.running: dict[str, Request] = {}
        self._line: Sequence[Request] = ()
        self._line_tokens_per_s = 0.0
        self._line_until_s = -math.inf  # until then it stays in this order, if nobody comes or goes
        self._ahead: tuple[wire.Ahead, ...] = ()
        self._ahead_until_s = -math.inf

    def __len__(self) -> int:
        return len(self.waiting) + len(self.running)

    def enqueue(self, request: Request) -> None:
        """Behind those of its priority that came earlier: a preempted request returns to its old place."""
        bisect.insort(self.waiting, request, key=_order)
        self._line_until_s = self._ahead_until_s = -math.inf

    def find(self, request_id: str) -> Request | None:
        running = self.running.get(request_id)
        if running is not None:
            return running
        return next((r for r in self.waiting if r.request_id == request_id), None)

    def admit(self, request_id: str) -> Request:
        index = next(i for i, r in enumerate(self.waiting) if r.request_id == request_id)
        request = self.waiting.pop(index)
        self._line_until_s = -math.inf
        self.running[request_id] = request
        return request

    def remove(self, request: Request) -> None:
        if self.running.pop(request.request_id, None) is None:
            self.waiting.remove(request)
            self._line_until_s = -math.inf

    def settle(self) -> None:
        """The promise has changed."""
        for request in (*self.waiting, *self.running.values()):
            request.settle()
        self._line_until_s = -math.inf

    def line(self, tokens_per_s: float | None, now_s: float) -> Sequence[Request]:
        """The waiting requests in the order in which to serve them, by what of each was cached when it was last seen.

        Without a rate by arrival. The order is kept for as long as it holds: it is asked for at every decision.
        """
        if tokens_per_s is None or len(self.waiting) < 2:
            return self.waiting
        if tokens_per_s != self._line_tokens_per_s or now_s >= self._line_until_s:
            self._line, self._line_until_s = order.line(self.waiting, tokens_per_s, now_s)
            self._line_tokens_per_s = tokens_per_s
        return self._line

    def candidates(
        self,
        line: Sequence[Request],
        at_least: int,
        free_places: int,
        max_tokens: int,
        max_pages: int,
        cache: KvCache,
    ) -> Iterator[views.Waiting]:
        """The head of the line: as much as a step could admit, and `at_least` so many.

        Matching a long prompt against the prefix cache is not free, so nobody behind the first who exceeds a step's
        tokens or the available pages is looked at.
        """
        tokens = pages = 0
        for index, request in enumerate(itertools.islice(line, max(at_least, free_places))):
            if index >= at_least and (tokens > max_tokens or pages > max_pages):
                return
            known_tokens = request.uncached_tokens
            view = request.waiting_view(cache)
            if request.uncached_tokens != known_tokens:
                self._line_until_s = -math.inf
            tokens += request.uncached_tokens
            pages += view.idle_pages
            yield view

    def decode_context_tokens(self) -> int:
        """Of the running requests whose next token needs a decode step."""
        return sum(r.computed for r in self.running.values() if r.computed + 1 == len(r.tokens))

    def queued_tokens(self) -> int:
        """Prompt tokens still to be computed. Of a waiting one without what was cached when it was last seen."""
        waiting = sum(request.uncached_tokens for request in self.waiting)
        running = sum(len(request.tokens) - request.computed for request in self.running.values())
        return waiting + running - sum(r.drawn_tokens > 0 for r in self.running.values())

    def ahead_of_new(
        self, promise: Promise, tokens_per_s: float | None, now_s: float
    ) -> tuple[wire.Ahead, ...]:
        """Empty where nobody is queued, or where requests are served as they came: without a rate."""
        queued = bool(self.waiting) or any(request.prefills for request in self.running.values())
        if tokens_per_s is None or not queued:
            return ()
        if now_s >= self._ahead_until_s:
            self._ahead = ahead.told(self._queued(), promise.ttft_s, tokens_per_s, now_s)
            self._ahead_until_s = now_s + AHEAD_S
        return self._ahead

    def _queued(self) -> Iterator[ahead.Queued]:
        for one in self.running.values():
            if one.prefills:
                left_tokens = len(one.tokens) - one.computed
                yield ahead.Queued(left_tokens, one.arrival_s, one.deadline_s, one.priority, True)
        for one in self.waiting:
            yield ahead.Queued(one.uncached_tokens, one.arrival_s, one.deadline_s, one.priority, False)
