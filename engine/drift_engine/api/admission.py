"""How many requests the node takes at once, and how many bytes of bodies it holds while it reads them.

The one bound on everything that waits behind the API: core queue, sockets' messages, texts being tokenized.
"""

from __future__ import annotations

import asyncio

from drift_engine.api import errors

BODY_BUDGET_BYTES = 256 * 1024 * 1024
"""Bodies under way together: with 1,000 clients that each send the largest body, memory stays below this."""


class Admission:
    def __init__(self, limit: int, body_budget_bytes: int = BODY_BUDGET_BYTES) -> None:
        self.limit = limit
        self._body_budget_bytes = body_budget_bytes
        self._body_bytes = 0
        self._requests = 0
        self.answering = 0
        """HTTP requests accepted and not yet answered."""
        self._idle = asyncio.Event()
        self._idle.set()

    def enter(self) -> Ticket:
        """Room for one request. Raises 429 when there is none."""
        self._take(1)
        self.answering += 1
        self._idle.clear()
        return Ticket(self)

    async def idle(self, timeout_s: float) -> bool:
        """Waits until every accepted request is answered; False when that takes longer."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def _leave(self, requests: int, body_bytes: int) -> None:
        self._requests -= requests
        self._body_bytes -= body_bytes
        self.answering -= 1
        if self.answering == 0:
            self._idle.set()

    def _take(self, requests: int) -> None:
        if self._requests + requests > self.limit:
            raise errors.full(self.limit)
        self._requests += requests


class Ticket:
    """One HTTP request's share. `leave` gives everything back and may be called again."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._requests = 1
        self._body_bytes = 0

    def grow(self, requests: int) -> None:
        """Room for `requests` in all (n choices, several prompts). Raises 429 when there is none."""
        if requests > self._requests:
            self._admission._take(requests - self._requests)
            self._requests = requests

    def hold(self, body_bytes: int) -> None:
        """Accounts for a part of the body. Raises 429 when the bodies of all requests are too much."""
        admission = self._admission
        if admission._body_bytes + body_bytes > admission._body_budget_bytes:
            raise errors.full(admission.limit)
        admission._body_bytes += body_bytes
        self._body_bytes += body_bytes

    def leave(self) -> None:
        if self._requests:
            self._admission._leave(self._requests, self._body_bytes)
            self._requests = self._body_bytes = 0
