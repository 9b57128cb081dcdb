"""A node on a real socket that does what a test says: answers, streams, breaks off, hangs, talks nonsense.

`ours=True` speaks the nodes' language to a router: seeds, tokens as comments, `drift_resume`. Its token i after a
prompt is the word `w<i>`, so a resumed answer can be compared word by word.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

import node_reports

WORDS = 12


@dataclass
class Received:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Behaviour = Callable[["ScriptedNode", Received, asyncio.StreamWriter], Awaitable[bool]]
"""True: the connection stays open for the next request."""


@dataclass
class ScriptedNode:
    name: str
    behave: Behaviour
    ours: bool = False
    received: list[Received] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    port: int = 0
    aborted: asyncio.Event = field(default_factory=asyncio.Event)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    pages: dict[str, bytes] = field(default_factory=dict)
    """What it answers to GET."""

    def __post_init__(self) -> None:
        self.pages = {
            "/health": b"{}",
            "/v1/models": b'{"object":"list","data":[]}',
            "/control/v1/report": msgspec.json.encode(node_reports.report(node=self.name)),
            "/kv/v1/state": b'{"sequence":0,"page_tokens":16,"blocks":[]}',
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def generations(self) -> list[Received]:
        return [one for one in self.received if one.method == "POST"]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self.writers.append(writer)
        try:
            while (request := await _read(reader)) is not None:
                self.received.append(request)
                path = request.target.partition("?")[0]
                if path in self.pages:
                    kept = await answer(self.pages[path])(self, request, writer)
                elif path == "/kv/v1/events":
                    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                    kept = await hang(self, request, writer)
                else:
                    kept = await self.behave(self, request, writer)
                if not kept:
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            self.aborted.set()
        finally:
            self.open -= 1
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Received | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method, target, headers, body)


@contextlib.asynccontextmanager
async def running(*nodes: ScriptedNode) -> AsyncIterator[None]:
    servers = []
    for node in nodes:
        server = await asyncio.start_server(node.serve, "127.0.0.1", node.port)
        node.port = server.sockets[0].getsockname()[1]
        servers.append(server)
    try:
        yield
    finally:
        for server in servers:
            server.close()
        for node in nodes:
            for writer in node.writers:
                writer.transport.abort()


# behaviours


def answer(body: bytes, status: str = "200 OK", extra: str = "") -> Behaviour:
    async def behave(node: ScriptedNode, request: Received, writer: asyncio.StreamWriter) -> bool:
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{extra}\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        return True

    return behave


def raw(data: bytes, *, then_close: bool = True) -> Behaviour:
    async def behave(node: ScriptedNode, request: Received, writer: asyncio.StreamWriter) -> bool:
        writer.write(data)
        await writer.drain()
        return not then_close

    return behave


async def hang(node: ScriptedNode, request: Received, writer: asyncio.StreamWriter) -> bool:
    await asyncio.Event().wait()
    return False


async def drop(node: ScriptedNode, request: Received, writer: asyncio.StreamWriter) -> bool:
    """Closes without a word."""
    return False


def stream(
    *, words: int = WORDS, break_after: int | None = None, hang_after: int | None = None, gap_s: float = 0.0
) -> Behaviour:
    """One event a word, then [DONE]."""

    async def behave(node: ScriptedNode, request: Received, writer: asyncio.StreamWriter) -> bool:
        asked = request.json
        resumed = asked.get("drift_resume") or {}
        before = resumed.get("token_ids", [])
        assert before == list(range(len(before))), "not the tokens that this node would have drawn"
        answer_id = resumed.get("id", f"chatcmpl-{node.name}")
        extra = "x-drift-seed: 7\r\n" if node.ours and request.headers.get("x-drift-resumable") else ""
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
            + extra.encode()
            + b"transfer-encoding: chunked\r\n\r\n"
        )
        for token in range(len(before), words):
            if break_after == token:
                await writer.drain()
                await asyncio.sleep(0.02)
                return False
            if hang_after == token:
                await asyncio.Event().wait()
            event = {
                "id": answer_id,
                "created": 1,
                "choices": [{"index": 0, "delta": {"content": f"w{token} "}}],
            }
            text = f"data: {json.dumps(event)}\n\n"
            if extra:
                text += f": tokens {token}\n\n"
            writer.write(_chunk(text.encode()))
            await writer.drain()
            if gap_s:
                await asyncio.sleep(gap_s)
        writer.write(_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        await writer.drain()
        return True

    return behave


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def said(body: bytes) -> str:
    """The text of a stream's events."""
    text = ""
    for event in body.split(b"\n\n"):
        if event.startswith(b"data: {"):
            found = json.loads(event[len(b"data: ") :])
            text += "".join(choice["delta"].get("content", "") for choice in found.get("choices", []))
    return text
