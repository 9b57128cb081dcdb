"""The console's documents for those who listen: one look at the services per tick, whoever and how many listen.

Looks go on without listeners, for the trails. A listener always gets the newest document; one that is slow misses
some, and never makes others wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from drift_operator.console import model
from drift_operator.console.seen import Known, ServiceSeen
from drift_operator.console.trails import Trails

log = logging.getLogger(__name__)

TICK_S = 2.0
"""A busy service's figures change every second, and a person reads no faster than this."""

MOST_LISTENERS = 32
"""Pages that are open at the same time. A document of eight nodes has 40 KB: 32 pages take some 0.6 MB/s."""

Key = tuple[str, str]


class Busy(Exception):  # noqa: N818 - an answer, not a fault
    """As many listen as may."""


class Feed:
    """Lives in one event loop, between `run`'s start and its end."""

    def __init__(
        self,
        known: Known,
        *,
        chat: bool,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock` is the one that figures are dated by."""
        self._closed = False
        self.listeners = 0
        self._known = known
        self._chat = chat
        self._clock = clock
        self._wall_clock = wall_clock
        self._trails = Trails()
        self._services: list[ServiceSeen] = []
        self._at_s = (clock(), wall_clock())
        self.number = 0
        """Of the last look."""
        self._made: dict[Key | None, bytes] = {}
        self._next = asyncio.Event()

    async def run(self) -> None:
        """Until it is cancelled."""
        try:
            while True:
                try:
                    self.look()
                except Exception:  # the page says that there is no news; the next look may do better
                    log.exception("the console can't look")
                await asyncio.sleep(TICK_S)
        finally:
            self.close()

    def close(self) -> None:
        """Listeners end."""
        self._closed = True
        self._next.set()

    def look(self) -> None:
        """A tick."""
        now_s = self._clock()
        services = list(self._known.seen())
        self._trails.add(services, now_s)
        self._services, self._at_s = services, (now_s, self._wall_clock())
        self._made.clear()
        self.number += 1
        told, self._next = self._next, asyncio.Event()
        told.set()

    def document(self, chosen: Key | None) -> bytes:
        """JSON of the last look, in one line. `chosen`: the service to tell in full."""
        known = chosen if any(service.key == chosen for service in self._services) else None
        if known not in self._made:
            now_s, unix_s = self._at_s
            made: dict[str, Any] = model.document(
                self._services, self._trails, known, now_s=now_s, unix_s=unix_s, chat=self._chat
            )
            self._made[known] = msgspec.json.encode(made)
        return self._made[known]

    def find(self, key: Key) -> ServiceSeen | None:
        return next((service for service in self._services if service.key == key), None)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Raises Busy."""
        if self.listeners >= MOST_LISTENERS:
            raise Busy
        self.listeners += 1
        try:
            yield
        finally:
            self.listeners -= 1

    async def after(self, number: int) -> int | None:
        """The number of the last look, once it is another one than `number`; None: the feed is closed."""
        while self.number == number and not self._closed:
            await self._next.wait()
        return None if self._closed else self.number
