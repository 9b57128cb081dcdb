"""The KV events of a Drift node, from its control port: `/kv/v1/state`, then the lines of `/kv/v1/events`.

A dead peer sends nothing and neither does an idle one: `expect` compares with what the node's reports say.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp

from drift_router.index import events
from drift_router.index.prefixes import PrefixIndex
from drift_router.nodes.feeds import Broken, Pace

MAX_STATE_BYTES = 256 << 20
"""Four million pages of 60 characters."""

MAX_LINE_BYTES = 16 << 20
"""One event: a prompt of a million tokens and its pages, in JSON."""

LAG_S = 5.0
"""How long the events may be behind the node's reports before the stream counts as dead. Both come within
milliseconds; a busy event loop takes longer. Estimate."""


@dataclass(slots=True)
class Agreement:
    """Whether the events keep up with the node's reports, which are a little older or newer than they are."""

    followed: int = -1
    reported: int = 0
    since_s: float = -math.inf
    """Nothing has been wrong until then."""

    def holds(self, followed: int, reported: int, now_s: float) -> bool:
        """False when events were owed for more than LAG_S, or the node counts from the start again."""
        moves = followed != self.followed
        if reported == followed or (followed >= self.reported if reported > followed else moves):
            self.followed, self.reported, self.since_s = followed, reported, now_s
        return now_s - self.since_s <= LAG_S


class ControlFeed:
    """Of one node (`feeds.Feed`). Holds at most one connection."""

    def __init__(
        self,
        index: PrefixIndex,
        pace: Pace,
        session: aiohttp.ClientSession,
        slot: int,
        url: str,
        token: str,
    ) -> None:
        self._index = index
        self._pace = pace
        self._session = session
        self._slot = slot
        self._url = url.rstrip("/")
        self._headers = {"x-drift-token": token, "accept-encoding": "identity"}
        self._followed = 0
        self._agreement = Agreement()
        self._stream: aiohttp.ClientResponse | None = None

    def expect(self, sequence: int, now_s: float) -> None:
        stream = self._stream
        if stream is not None and not self._agreement.holds(self._followed, sequence, now_s):
            stream.close()  # its reader finds it broken

    def close(self) -> None:
        """Its connection went with its task."""

    async def restore(self) -> None:
        document = bytearray()
        async with asyncio.timeout(self._pace.state_s), self._get("/kv/v1/state") as response:
            async for chunk in response.content.iter_any():
                document += chunk
                if len(document) > MAX_STATE_BYTES:
                    raise Broken(f"the state is longer than {MAX_STATE_BYTES} bytes")
        state = events.parse_state(document)
        self._index.restore(self._slot, state.pages)
        self._followed, self._agreement = state.sequence, Agreement()

    async def follow(self) -> None:
        async with self._get(f"/kv/v1/events?after={self._followed}&tokens=false") as stream:
            self._stream = stream
            try:
                rest = b""
                async for chunk in stream.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        self._apply(events.parse_event(line))
                    if len(rest) > MAX_LINE_BYTES:
                        raise Broken(f"an event is longer than {MAX_LINE_BYTES} bytes")
                raise Broken("the node ended the stream")
            finally:
                self._stream = None

    def _apply(self, event: events.Event) -> None:
        if event.sequence != self._followed + 1:
            raise Broken(f"event {event.sequence} came after event {self._followed}")
        match event:
            case events.Stored(pages=pages):
                self._index.stored(self._slot, pages)
            case events.Removed(pages=pages):
                self._index.removed(self._slot, pages)
            case events.Cleared():
                self._index.cleared(self._slot)
        self._followed = event.sequence

    @contextlib.asynccontextmanager
    async def _get(self, path: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """Its body has no deadline of its own."""
        async with asyncio.timeout(self._pace.answer_s):
            response = await self._session.get(self._url + path, headers=self._headers, allow_redirects=False)
        try:
            if response.status != 200:
                raise Broken(f"{path} was answered with status {response.status}")
            yield response
        finally:
            response.close()
