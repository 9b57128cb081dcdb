"""A whole router in the test's event loop, before scripted nodes; and a client that says what a test wants."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from drift_router.options import Limits, Patience, RouterOptions
from drift_router.process import Router
from drift_router.worker import Worker
from scripted_node import ScriptedNode, running
from waiting import until

TOKEN = "control-token"
DEADLINE_S = 20.0

PATIENT = Patience(connect_s=2.0, drain_s=2.0)
T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T], deadline_s: float = DEADLINE_S) -> T:
    async def bounded() -> T:
        try:
            async with asyncio.timeout(deadline_s):
                return await coroutine
        finally:
            _hang_up()

    return asyncio.run(bounded())


@contextlib.asynccontextmanager
async def routing(
    *nodes: ScriptedNode, limits: Limits | None = None, patience: Patience | None = None, **options: Any
) -> AsyncIterator[Worker]:
    """The router serves and every node is known to be healthy."""
    async with running(*nodes):
        urls = tuple(f"{node.url},{node.url}" if node.ours else node.url for node in nodes)
        asked = RouterOptions(
            port=0,
            nodes=urls,
            control_token=TOKEN,
            limits=limits or Limits(),
            patience=patience or PATIENT,
            **options,
        )
        worker = Worker(asked)
        router = Router(asked, worker)
        await router.start()
        try:
            await until(lambda: len(worker.registry.snapshot(worker.now_s())) == len(nodes))
            yield worker
        finally:
            _hang_up()
            await router.stop()
            await worker.stop()


def _hang_up() -> None:
    """Whatever a test left open."""
    for caller in _open:
        caller.writer.transport.abort()
    _open.clear()


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Caller:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, router: Worker) -> Caller:
        caller = cls(*await asyncio.open_connection("127.0.0.1", router.port))
        _open.append(caller)
        return caller

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> Answer:
        """The next one. Raises IncompleteReadError where it breaks off."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")[:-2]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if headers.get("transfer-encoding") == "chunked":
            chunks = []
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                chunks.append((await self.reader.readexactly(size + 2))[:-2])
            await self.reader.readexactly(2)
            body = b"".join(chunks)
        elif "content-length" in headers:
            body = await self.reader.readexactly(int(headers["content-length"]))
        else:
            body = await self.reader.read()
        return Answer(int(first.split(" ")[1]), headers, body)

    async def ask(self, request: bytes) -> Answer:
        await self.send(request)
        return await self.answer()

    async def closed(self) -> bool:
        """Whether the other side ends the connection (with nothing more to say)."""
        return await self.reader.read(1) == b""

    def close(self) -> None:
        self.writer.close()


def chat(
    text: str = "hello",
    *,
    headers: dict[str, str] | None = None,
    path: str = "/v1/chat/completions",
    **fields: Any,
) -> bytes:
    """A request as a client would send it."""
    body = msgspec.json.encode(
        {"model": "drift-tiny", "messages": [{"role": "user", "content": text}], **fields}
    )
    lines = {"host": "router", "content-type": "application/json", **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}content-length: {len(body)}\r\n\r\n".encode() + body


_open: list[Caller] = []
"""Closed with the router at the latest."""


async def ask(router: Worker, request: bytes) -> Answer:
    """On a connection of its own."""
    caller = await Caller.connect(router)
    try:
        return await caller.ask(request)
    finally:
        caller.close()
