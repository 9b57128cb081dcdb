"""What vLLM says on the wire: its event publisher on two real sockets, and its API as far as a router uses it.

The structs are declared as vLLM declares them, in the form until 0.23 (`Arrays`) and later (`Maps`), so that what is
encoded here is what a node sends. Block hashes are salted by each publisher, as vLLM's are by each process.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import hashlib
import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Any, Self

import msgspec
import zmq
import zmq.asyncio

BLOCK_TOKENS = 16
END = (-1).to_bytes(8, "big", signed=True)


class Arrays:
    class Event(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
        pass

    class BlockStored(Event, tag="BlockStored"):
        block_hashes: list[bytes | int]
        parent_block_hash: bytes | int | None
        token_ids: list[int]
        block_size: int
        lora_id: int | None
        medium: str | None
        lora_name: str | None

    class BlockRemoved(Event, tag="BlockRemoved"):
        block_hashes: list[bytes | int]
        medium: str | None

    class AllBlocksCleared(Event, tag="AllBlocksCleared"):
        pass

    class KVEventBatch(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
        ts: float
        events: list[Any]
        data_parallel_rank: int | None = None


class Maps:
    class Event(msgspec.Struct, omit_defaults=True, gc=False):
        pass

    class BlockStored(Event, tag="BlockStored"):
        block_hashes: list[bytes | int]
        parent_block_hash: bytes | int | None
        token_ids: list[int]
        block_size: int
        lora_id: int | None
        medium: str | None
        lora_name: str | None
        extra_keys: list[tuple[Any, ...] | None] | None = None
        group_idx: int | None = None
        kv_cache_spec_kind: str | None = None
        kv_cache_spec_sliding_window: int | None = None

    class BlockRemoved(Event, tag="BlockRemoved"):
        block_hashes: list[bytes | int]
        medium: str | None
        group_idx: int | None = None

    class AllBlocksCleared(Event, tag="AllBlocksCleared"):
        pass

    class KVEventBatch(msgspec.Struct, omit_defaults=True, gc=False):
        ts: float
        events: list[Any]
        data_parallel_rank: int | None = None


FORMS: dict[str, Any] = {"arrays": Arrays, "maps": Maps}


class Cache:
    """An engine's blocks: makes the events of one process."""

    def __init__(self, form: str = "maps", *, block_tokens: int = BLOCK_TOKENS, whole: bool = True) -> None:
        """`whole`: hashes are 32 bytes, else the 64-bit integers of `VLLM_KV_EVENTS_USE_INT_BLOCK_HASHES`."""
        self.form = FORMS[form]
        self.block_tokens = block_tokens
        self._whole = whole
        self._salt = os.urandom(8)
        self.held: set[bytes | int] = set()

    def hashes(self, token_ids: Sequence[int]) -> list[bytes | int]:
        return list(self._hashes(token_ids))

    def _hashes(self, token_ids: Sequence[int]) -> Iterator[bytes | int]:
        digest = self._salt
        size = self.block_tokens
        for start in range(0, len(token_ids) - size + 1, size):
            digest = hashlib.sha256(digest + repr(token_ids[start : start + size]).encode()).digest()
            yield digest if self._whole else int.from_bytes(digest[:8], "big")

    def store(self, token_ids: Sequence[int], /, **fields: Any) -> list[Any]:
        """Of a prompt's full blocks those that are not held."""
        hashes = self.hashes(token_ids)
        known = len(list(itertools.takewhile(self.held.__contains__, hashes)))
        new = hashes[known:]
        if not new:
            return []
        self.held.update(new)
        first = known * self.block_tokens
        return [
            self.form.BlockStored(
                **{
                    "block_hashes": new,
                    "parent_block_hash": hashes[known - 1] if known else None,
                    "token_ids": list(token_ids[first : first + len(new) * self.block_tokens]),
                    "block_size": self.block_tokens,
                    "lora_id": None,
                    "medium": "GPU",
                    "lora_name": None,
                    **fields,
                }
            )
        ]

    def remove(self, token_ids: Sequence[int], first_block: int = 0) -> list[Any]:
        gone = self.hashes(token_ids)[first_block:]
        self.held.difference_update(gone)
        return [self.form.BlockRemoved(block_hashes=[one], medium="GPU") for one in reversed(gone)]

    def clear(self) -> list[Any]:
        self.held.clear()
        return [self.form.AllBlocksCleared()]

    def batch(self, events: list[Any]) -> bytes:
        return msgspec.msgpack.encode(self.form.KVEventBatch(ts=0.0, events=events, data_parallel_rank=0))


class Publisher:
    """PUB and ROUTER as vLLM's `ZmqEventPublisher` serves them, on ports that stay its own over restarts."""

    def __init__(self, buffer_steps: int = 10_000) -> None:
        self.buffer_steps = buffer_steps
        self.asked: list[int] = []
        """First numbers of the replays."""
        self.deaf = False
        """To questions for a replay."""
        self.events_url = self.replay_url = ""
        self._context = zmq.asyncio.Context()
        self._published: zmq.asyncio.Socket | None = None
        self._replay: zmq.asyncio.Socket | None = None
        self._task: asyncio.Task[None] | None = None
        self._begin()

    def _begin(self) -> None:
        self.number = 0
        self._buffer: collections.deque[tuple[int, bytes]] = collections.deque(maxlen=self.buffer_steps)

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        self._context.destroy(linger=0)

    async def _open(self) -> None:
        self._published = self._context.socket(zmq.PUB)
        self._replay = self._context.socket(zmq.ROUTER)
        for socket, name in ((self._published, "events_url"), (self._replay, "replay_url")):
            socket.set(zmq.LINGER, 0)
            await _bind(socket, getattr(self, name) or "tcp://127.0.0.1:*")
            setattr(self, name, socket.get_string(zmq.LAST_ENDPOINT))
        self._task = asyncio.create_task(self._serve(self._replay))

    async def stop(self) -> None:
        """The process is gone."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for socket in (self._published, self._replay):
            if socket is not None:
                socket.close(linger=0)
        self._task = self._published = self._replay = None

    async def restart(self) -> None:
        """Another process at the same address, which counts from the start."""
        await self.stop()
        self._begin()
        await self._open()

    async def publish(self, batch: bytes, *, lost: bool = False) -> None:
        """`lost`: on its way to those who listen; it can be asked for."""
        number, self.number = self.number, self.number + 1
        if not lost:
            await self.say([b"kv-events", number.to_bytes(8, "big"), batch])
        self._buffer.append((number, batch))

    async def say(self, frames: list[bytes]) -> None:
        assert self._published is not None
        await self._published.send_multipart(frames)

    async def _serve(self, replay: zmq.asyncio.Socket) -> None:
        while True:
            client, delimiter, start = await replay.recv_multipart()
            self.asked.append(int.from_bytes(start, "big"))
            if self.deaf:
                continue
            for number, batch in list(self._buffer):
                if number >= self.asked[-1]:
                    await replay.send_multipart([client, delimiter, number.to_bytes(8, "big"), batch])
            await replay.send_multipart([client, delimiter, END, b""])


async def _bind(socket: zmq.asyncio.Socket, url: str) -> None:
    """The socket that had the port before is closed in the background."""
    while True:
        try:
            socket.bind(url)
        except zmq.ZMQError as error:
            if error.errno != zmq.EADDRINUSE:
                raise
            await asyncio.sleep(0.01)
        else:
            return
