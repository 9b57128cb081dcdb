"""The core's requests: those that wait, in the order in which they are served, and those that run."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterable, Iterator

from drift_engine.cache import Match
from drift_engine.core.requests import Request
from drift_engine.scheduling import views
from drift_engine.scheduling.order import urgency


def _order(request: Request) -> tuple[int, float, str]:
    return (-request.submit.priority, request.submit.arrival_s, request.request_id)


class Queues:
    """Every request of the core is in exactly one of the two."""

    def __init__(self) -> None:
        self.waiting: list[Request] = []
        self.running: dict[str, Request] = {}

    def __len__(self) -> int:
        return len(self.waiting) + len(self.running)

    def enqueue(self, request: Request) -> None:
        """Behind those of its priority that came earlier: a preempted request returns to its old place."""
        bisect.insort(self.waiting, request, key=_order)

    def find(self, request_id: str) -> Request | None:
        running = self.running.get(request_id)
        if running is not None:
            return running
        return next((r for r in self.waiting if r.request_id == request_id), None)

    def admit(self, request_id: str) -> Request:
        index = next(i for i, r in enumerate(self.waiting) if r.request_id == request_id)
        request = self.waiting.pop(index)
        self.running[request_id] = request
        return request

    def remove(self, request: Request) -> None:
        if self.running.pop(request.request_id, None) is None:
            self.waiting.remove(request)

    def by_urgency(self, tokens_per_s: float, now_s: float) -> Iterable[Request]:
        """The waiting line in the order in which to serve it; reuse is not known yet and not taken off."""
        if len(self.waiting) < 2:
            return self.waiting
        return sorted(
            self.waiting,
            key=lambda r: urgency(
                priority=r.submit.priority,
                arrival_s=r.submit.arrival_s,
                deadline_s=r.deadline_s,
                prefill_s=len(r.tokens) / tokens_per_s if tokens_per_s else 0.0,
                now_s=now_s,
            ),
        )

    def candidates(
        self,
        line: Iterable[Request],
        free_places: int,
        max_tokens: int,
        max_pages: int,
        match: Callable[[Request], Match],
    ) -> Iterator[views.Waiting]:
        """The head of the line: as much as a step could admit.

        Matching a long prompt against the prefix cache is not free, so nobody behind the first who exceeds a
        step's tokens or the available pages is looked at.
        """
        tokens = pages = 0
        for request in itertools.islice(line, max(0, free_places)):
            if tokens > max_tokens or pages > max_pages:
                return
            view = request.waiting_view(match(request))
            tokens += view.tokens - view.cached_tokens
            pages += view.idle_pages
            yield view

    def queued_tokens(self) -> int:
        """Prompt tokens still to be computed; reuse by waiting requests is not known yet and not taken off."""
        waiting = sum(len(request.tokens) for request in self.waiting)
        running = sum(len(request.tokens) - request.computed for request in self.running.values())
        return waiting + running - sum(r.drawn_tokens > 0 for r in self.running.values())
