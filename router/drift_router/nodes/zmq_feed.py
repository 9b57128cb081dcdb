"""The KV events of a vLLM node, from the two sockets of its event publisher.

    SUB     [topic, number as 8 bytes big-endian, batch]                      every batch as it happens
    DEALER  ["", first number]  ->  ["", number, batch] ... ["", END, ""]     those that the publisher still has

There is no document of all that the node holds: the past is read from what the publisher kept (its `buffer_steps`).
Where that does not go back to its first batch, blocks from before are missing until the node clears its cache, and
the index is told that its knowledge is a guess.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Sequence

import xxhash
import zmq
import zmq.asyncio

from drift_router.index import engine_events
from drift_router.index.aliases import Aliases
from drift_router.index.engine_events import Cleared, Removed, Stored
from drift_router.index.prefixes import PrefixIndex
from drift_router.nodes.feeds import Broken, Pace

CHECK_S = 5.0
"""Of silence, until the publisher is asked for its last batch again: a connection that is dead, or a process that
began anew, is found out so. Estimate."""

MAX_BATCH_BYTES = 16 << 20
"""A prompt of a million tokens with the hashes of its blocks, in msgpack. A longer message ends its connection."""

MAX_WAITING_BATCHES = 4096
"""That came while the past was read; the publisher drops more, which shows as a gap."""

REMEMBERED = 2 * MAX_WAITING_BATCHES
"""Of the last batches the digest is kept: what comes by both sockets is told from a publisher that counts anew."""

_END = (1 << 64) - 1
_NUMBER_BYTES = 8


class ZmqFeed:
    """Of one node (`feeds.Feed`)."""

    def __init__(
        self,
        index: PrefixIndex,
        pace: Pace,
        context: zmq.asyncio.Context,
        slot: int,
        events_url: str,
        replay_url: str,
    ) -> None:
        self.aliases = Aliases()
        self._index = index
        self._pace = pace
        self._context = context
        self._slot = slot
        self._events_url = events_url
        self._replay_url = replay_url
        self._events: zmq.asyncio.Socket | None = None
        self._replay: zmq.asyncio.Socket | None = None
        self._followed = -1
        self._whole = False  # all that the node holds is known
        self._digests: collections.OrderedDict[int, int] = collections.OrderedDict()

    def close(self) -> None:
        for socket in (self._events, self._replay):
            if socket is not None:
                socket.close(linger=0)
        self._events = self._replay = None

    async def restore(self) -> None:
        self.close()
        self.aliases = Aliases()
        self._followed, self._whole = -1, True
        self._digests.clear()
        # Subscribed before the past is asked for: what happens in between comes by both.
        self._events = self._socket(zmq.SUB, self._events_url)
        async with asyncio.timeout(self._pace.state_s):
            await self._catch_up()

    async def follow(self) -> None:
        events = self._events
        assert events is not None
        while True:
            if not await events.poll(round(CHECK_S * 1e3)):
                await self._check()
                continue
            number, batch = _message(await events.recv_multipart(zmq.NOBLOCK))
            if number > self._followed + 1:
                self._index.lost(self._slot)
                async with asyncio.timeout(self._pace.state_s):
                    await self._catch_up()
            self._take(number, batch, told=True)

    async def _check(self) -> None:
        """Raises Broken where the last batch is not the publisher's any more."""
        try:
            if not await self._ask(max(self._followed, 0), told=True):
                raise Broken("batches were lost while nothing seemed to happen")
        except TimeoutError:
            raise Broken("the publisher does not answer") from None

    async def _catch_up(self) -> None:
        """All that the publisher has beyond what was followed. Asked more than once where its answer was cut: a
        publisher drops what a slow network does not take."""
        while True:
            before = self._followed
            try:
                if await self._ask(before + 1, told=False):
                    break
            except TimeoutError:
                if self._followed == before:
                    raise Broken("the publisher does not answer") from None
        self._index.restore(self._slot, self.aliases.names)
        if not self._whole:
            self._index.lost(self._slot)

    async def _ask(self, start: int, *, told: bool) -> bool:
        """Takes what the publisher has from this batch on; False: some of the answer is missing. Raises Broken where
        the beginning is, and TimeoutError."""
        replay = self._replay = self._fresh_replay()
        await replay.send_multipart([b"", start.to_bytes(_NUMBER_BYTES)])
        first = True
        while True:
            async with asyncio.timeout(self._pace.answer_s):
                number, batch = _message(await replay.recv_multipart())
            if number == _END:
                if first and start <= self._followed:
                    raise Broken("the publisher counts from the start again")
                return True
            if first and number > start:
                if told or self._followed >= 0:
                    raise Broken(f"batches {start} to {number - 1} are lost")
                self._followed, self._whole = number - 1, False
            if number > self._followed + 1:
                return False
            self._take(number, batch, told=told)
            first = False

    def _take(self, number: int, batch: bytes, *, told: bool) -> None:
        """`told`: to the index as well. Raises Broken or Malformed."""
        digest = xxhash.xxh3_64_intdigest(batch)
        if number <= self._followed:
            if self._digests.get(number) != digest:
                raise Broken(f"batch {number} came after batch {self._followed}")
            return
        if number != self._followed + 1:
            raise Broken(f"batch {number} came after batch {self._followed}")
        for event, pages in self.aliases.apply(engine_events.parse(batch)):
            if isinstance(event, Cleared):
                self._whole = True
            if told:
                self._tell(event, pages)
        self._followed = number
        self._digests[number] = digest
        if len(self._digests) > REMEMBERED:
            self._digests.popitem(last=False)

    def _tell(self, event: engine_events.Event, pages: Sequence[int]) -> None:
        match event:
            case Stored():
                self._index.stored(self._slot, pages)
            case Removed():
                self._index.removed(self._slot, pages)
            case Cleared():
                self._index.restore(self._slot, ())

    def _fresh_replay(self) -> zmq.asyncio.Socket:
        """Without what a question before may still be answered."""
        if self._replay is not None:
            self._replay.close(linger=0)
        return self._socket(zmq.DEALER, self._replay_url)

    def _socket(self, kind: int, url: str) -> zmq.asyncio.Socket:
        socket = self._context.socket(kind)
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.RCVHWM, MAX_WAITING_BATCHES)
        socket.set(zmq.MAXMSGSIZE, MAX_BATCH_BYTES)
        socket.set(zmq.HEARTBEAT_IVL, round(CHECK_S * 1e3))
        socket.set(zmq.IPV6, 1)
        if kind == zmq.SUB:
            socket.set(zmq.SUBSCRIBE, b"")
        socket.connect(url)
        return socket


def _message(frames: Sequence[bytes]) -> tuple[int, bytes]:
    """Raises Broken."""
    if len(frames) != 3 or len(frames[1]) != _NUMBER_BYTES:
        raise Broken("a message of the publisher is not [topic, number, batch]")
    return int.from_bytes(frames[1]), frames[2]
