"""One HTTP request's requests to the core, from submission to the last output or cancellation.

In: outputs from `drift_engine.node.link`, one call per output of a step. Out: batches for `answers`, each
with all that came since the last one, so that a step costs one wake-up and one write however many choices
it fed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from drift_engine import wire
from drift_engine.node.link import CoreLink

BACKLOG_TOKENS = 4096
"""Tokens that may wait for a slow reader before its request is given up: half a minute of fast decoding."""


class Arrival(NamedTuple):
    choice: int
    output: wire.Output
    at_s: float


class SlowReader(Exception):  # noqa: N818 - a fact about the client
    """The client reads more slowly than the model writes, for too long."""


class Flight:
    def __init__(self, link: CoreLink, submits: Sequence[wire.Submit]) -> None:
        self._link = link
        self._open = {index: submit.request_id for index, submit in enumerate(submits)}
        self._arrived: list[Arrival] = []
        self._backlog_tokens = 0
        self._waiter: asyncio.Future[None] | None = None
        self._overrun = False
        self._gone = False
        for index, submit in enumerate(submits):
            link.submit(submit, self, index)

    @property
    def done(self) -> bool:
        """Every request has ended and every output was taken."""
        return not self._open and not self._arrived

    def put(self, index: int, output: wire.Output, at_s: float) -> None:
        self._arrived.append(Arrival(index, output, at_s))
        if output.finish is not None:
            self._open.pop(index, None)
        self._backlog_tokens += len(output.token_ids)
        if self._backlog_tokens > BACKLOG_TOKENS:
            self._overrun = True
            self.close()
        self._wake()

    async def take(self) -> list[Arrival]:
        """Waits for outputs; empty once the client has gone. Raises SlowReader."""
        while not self._arrived and not self._gone:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._overrun:
            raise SlowReader
        if self._gone:
            return []
        arrived, self._arrived = self._arrived, []
        self._backlog_tokens = 0
        return arrived

    def end(self, index: int) -> None:
        """Cancels one request: its answer is complete (a stop string was found)."""
        if (request_id := self._open.pop(index, None)) is not None:
            self._link.cancel(request_id)

    def leave(self) -> None:
        """The client has gone."""
        self._gone = True
        self.close()
        self._wake()

    def close(self) -> None:
        """Cancels what has not ended. Safe to call again."""
        for index in list(self._open):
            self.end(index)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
