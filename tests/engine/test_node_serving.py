"""The node's HTTP server: connections whose request does not come."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.responses import PlainTextResponse

from drift_engine.node import serving

DEADLINE_S = 20
REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    listener = serving.bind("127.0.0.1", 0, "port")
    server = serving.HttpServer(PlainTextResponse("hello"), listener)
    server.start()
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield reader, writer
    finally:
        writer.close()
        await server.stop()


def test_answers_are_sent_without_waiting_for_acknowledgements() -> None:
    """Nagle's algorithm would hold a stream's first token back until the headers are acknowledged."""
    listener = serving.bind("127.0.0.1", 0, "port")
    with listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


@pytest.mark.parametrize("beginning", [b"", b"G", REQUEST[:-2]], ids=["nothing", "a byte", "half a head"])
def test_a_request_that_does_not_come_ends_its_connection(
    beginning: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "HEADERS_TIMEOUT_S", 0.05)

    async def run() -> None:
        async with connected() as (reader, writer):
            writer.write(beginning)
            assert await reader.read() == b""

    asyncio.run(run())


def test_so_does_a_second_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with connected() as (reader, writer):
            writer.write(REQUEST)
            assert b"200 OK" in await reader.readuntil(b"hello")
            monkeypatch.setattr(serving, "HEADERS_TIMEOUT_S", 0.05)
            writer.write(REQUEST[:-2])
            assert await reader.read() == b""

    asyncio.run(run())


def test_an_idle_connection_outlives_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "HEADERS_TIMEOUT_S", 0.05)

    async def run() -> None:
        async with connected() as (reader, writer):
            for _ in range(3):
                writer.write(REQUEST)
                assert b"200 OK" in await reader.readuntil(b"hello")
                await asyncio.sleep(2 * serving.HEADERS_TIMEOUT_S)

    asyncio.run(run())
