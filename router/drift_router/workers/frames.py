"""What a parent and its worker say to each other, over a pair of sockets of theirs: length, then msgpack.

The worker reads in order, so an answer to `Show` also says that all before it was taken. Where the stream ends, the
other one is gone: that is what keeps a worker from outliving its parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Generic, TypeVar

import msgspec

from drift_router.counters import Counters
from drift_router.keys import Key
from drift_router.nodes.addresses import Address
from drift_router.options import Promise, RouterOptions
from drift_router.pictures import Picture

MAX_FRAME_BYTES = 256 << 20
"""A picture of 4,096 nodes with reports of 10 KiB has 40 MB."""

_LENGTH_BYTES = 4


class TakeNodes(msgspec.Struct, frozen=True, tag=True):
    nodes: tuple[Address, ...]


class TakeKeys(msgspec.Struct, frozen=True, tag=True):
    keys: list[Key]


class TakePromise(msgspec.Struct, frozen=True, tag=True):
    promise: Promise
    number: int
    """How often it changed."""


class Begin(msgspec.Struct, frozen=True, tag=True):
    """The first frame of all."""

    options: RouterOptions
    place: int
    """0 to `options.workers` - 1."""
    folder: str
    """Where the workers' sockets for each other are."""
    nodes: tuple[Address, ...]
    keys: list[Key] | None
    promise: TakePromise
    leaving: bool


class Show(msgspec.Struct, frozen=True, tag=True):
    number: int


class Leave(msgspec.Struct, frozen=True, tag=True):
    """Go on, and be not ready any more."""


class Drain(msgspec.Struct, frozen=True, tag=True):
    """Take nothing new, and end when all has ended."""


class Serving(msgspec.Struct, frozen=True, tag=True):
    """From now on."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """It can't serve, and ends."""

    problem: str


class Shown(msgspec.Struct, frozen=True, tag=True):
    number: int
    picture: Picture


class Pulse(msgspec.Struct, frozen=True, tag=True):
    """Every now and then: it lives, and what it counted is not lost with it."""

    counters: Counters


ToWorker = Begin | TakeNodes | TakeKeys | TakePromise | Show | Leave | Drain
ToParent = Serving | Failed | Shown | Pulse

Heard = TypeVar("Heard")

_encoder = msgspec.msgpack.Encoder()


class Channel(Generic[Heard]):
    """One end."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        decoder: msgspec.msgpack.Decoder[Heard],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = decoder

    @property
    def unsent_bytes(self) -> int:
        return self._writer.transport.get_write_buffer_size()

    def send(self, message: ToWorker | ToParent) -> None:
        """What the other one does not take any more is lost with it."""
        frame = _encoder.encode(message)
        self._writer.write(len(frame).to_bytes(_LENGTH_BYTES, "big") + frame)

    async def receive(self) -> Heard:
        """Raises EOFError when the other one is gone, msgspec.DecodeError for what it can't mean."""
        try:
            length = int.from_bytes(await self._reader.readexactly(_LENGTH_BYTES), "big")
            if length > MAX_FRAME_BYTES:
                raise msgspec.DecodeError(f"a frame of {length} bytes is longer than {MAX_FRAME_BYTES}")
            return self._decoder.decode(await self._reader.readexactly(length))
        except ConnectionError as error:
            raise EOFError from error

    async def close(self) -> None:
        """What was sent goes out first."""
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


async def to_worker(end: socket.socket) -> Channel[ToParent]:
    """The parent's end."""
    return Channel(*await asyncio.open_unix_connection(sock=end), msgspec.msgpack.Decoder[ToParent](ToParent))


async def to_parent(end: socket.socket) -> Channel[ToWorker]:
    """The worker's end."""
    return Channel(*await asyncio.open_unix_connection(sock=end), msgspec.msgpack.Decoder[ToWorker](ToWorker))
