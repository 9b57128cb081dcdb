"""Follows the KV events of every node that tells any, and keeps the prefix index true to them.

For each node: read its full state, then its events from there on, one number after the other. Whatever breaks that
order (a gap, 410, garbage, a closed connection) makes the index doubt the node, and after a pause all of it is read
anew. How that is asked for is its feed's affair: `control_feed` for a Drift node, `zmq_feed` for vLLM's publisher.
"""

from __future__ import annotations

import asyncio
import logging
import random

import aiohttp
import zmq
import zmq.asyncio

from drift_router.index import events
from drift_router.index.aliases import Aliases
from drift_router.index.prefixes import PrefixIndex
from drift_router.nodes.control_feed import ControlFeed
from drift_router.nodes.feeds import Broken, Feed, Pace
from drift_router.nodes.zmq_feed import ZmqFeed

log = logging.getLogger(__name__)

MAX_ZMQ_SOCKETS = 16_384
"""Two for each of 4,096 nodes, and as many that are being closed."""


class Following:
    """Owns one task and the connections of one feed for each node. Lives in one event loop."""

    def __init__(self, index: PrefixIndex, pace: Pace | None = None) -> None:
        self._index = index
        self._pace = pace or Pace()
        self._session: aiohttp.ClientSession | None = None
        self._context: zmq.asyncio.Context | None = None
        self._feeds: dict[int, Feed] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def start(self, slot: int, url: str, token: str) -> None:
        """`url` is the node's control port. A slot that is followed already changes to it."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),  # one each, and the nodes are counted elsewhere
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                auto_decompress=False,
            )
        self._follow(slot, url, ControlFeed(self._index, self._pace, self._session, slot, url, token))

    def subscribe(self, slot: int, events_url: str, replay_url: str) -> None:
        """The same with the two sockets of vLLM's event publisher."""
        if self._context is None:
            self._context = zmq.asyncio.Context()
            self._context.set(zmq.MAX_SOCKETS, MAX_ZMQ_SOCKETS)
        feed = ZmqFeed(self._index, self._pace, self._context, slot, events_url, replay_url)
        self._follow(slot, events_url, feed)

    def expect(self, slot: int, sequence: int, now_s: float) -> None:
        """The node's report says that its newest event has the number `sequence`."""
        feed = self._feeds.get(slot)
        if isinstance(feed, ControlFeed):
            feed.expect(sequence, now_s)

    def aliases(self, slot: int) -> Aliases | None:
        """What an engine's own block hashes stand for, as far as they were told."""
        feed = self._feeds.get(slot)
        return feed.aliases if isinstance(feed, ZmqFeed) else None

    def stop(self, slot: int) -> None:
        """From here on nothing of this node reaches the index; what is known stays until `PrefixIndex.forget`."""
        self._feeds.pop(slot, None)
        if task := self._tasks.pop(slot, None):
            task.cancel()
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        for slot in list(self._tasks):
            self.stop(slot)
        await asyncio.gather(*self._ending, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
            self._session = None
        if self._context is not None:
            self._context.destroy(linger=0)
            self._context = None

    def _follow(self, slot: int, url: str, feed: Feed) -> None:
        self.stop(slot)
        self._feeds[slot] = feed
        self._tasks[slot] = asyncio.create_task(self._run(slot, url, feed), name=f"following {slot}")

    async def _run(self, slot: int, url: str, feed: Feed) -> None:
        loop, pace = asyncio.get_running_loop(), self._pace
        known_s, pause_s = loop.time(), pace.retry_s / 2
        try:
            while True:
                stood_s = await _attempt(slot, url, feed)
                now_s = loop.time()
                if stood_s is not None:
                    known_s = now_s
                if now_s - known_s < pace.silent_s:
                    self._index.lost(slot)
                else:
                    self._index.silent(slot)
                success = stood_s is not None and stood_s >= pace.retry_most_s
                pause_s = pace.retry_s if success else min(2 * pause_s, pace.retry_most_s)
                await asyncio.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311 - spreads retries
        finally:
            feed.close()


async def _attempt(slot: int, url: str, feed: Feed) -> float | None:
    """For how long events were followed; None: there was no state to begin with."""
    loop = asyncio.get_running_loop()
    start_s = None
    try:
        await feed.restore()
        start_s = loop.time()
        await feed.follow()
    except (Broken, events.Malformed, aiohttp.ClientError, zmq.ZMQError, OSError) as error:
        # that a node stays away is for its health checks to tell
        level = logging.DEBUG if start_s is None else logging.WARNING
        reason = str(error) or type(error).__name__
        log.log(level, "kv events broken", extra={"slot": slot, "url": url, "reason": reason})
    except Exception:
        # our own mistake: without another attempt what is known now would be believed for ever
        log.exception("following kv events failed", extra={"slot": slot, "url": url})
    return None if start_s is None else loop.time() - start_s
