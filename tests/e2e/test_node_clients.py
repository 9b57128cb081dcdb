"""Clients that leave, dawdle or come in crowds: the node keeps nothing of theirs, and disturbs nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import socket
import struct
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import real_node

CROWD = 1000
LONG = 1900
"""Tokens: many seconds of work, so that whoever leaves does it in the middle."""

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of a client that dies: closing sends a reset."""


def request(node: real_node.RealNode, **fields: Any) -> bytes:
    body = json.dumps(node.completion(**fields)).encode()
    return (
        b"POST /v1/completions HTTP/1.1\r\nHost: node\r\nContent-Type: application/json\r\n"
        b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    ) + body


def address(node: real_node.RealNode) -> tuple[str, int]:
    parts = urllib.parse.urlsplit(node.url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


@contextlib.contextmanager
def connected(node: real_node.RealNode, receive_bytes: int | None = None) -> Iterator[socket.socket]:
    with socket.socket() as client:
        if receive_bytes is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        client.settimeout(real_node.DEADLINE_S)
        client.connect(address(node))
        yield client


def running(node: real_node.RealNode, requests: int) -> bool:
    return int(node.report()["running"]) >= requests


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_client_that_vanishes_stops_its_generation(
    node: real_node.RealNode, stream: bool, reset: bool
) -> None:
    alone = node.tokens(max_tokens=100)
    before = node.count("drift_core_generation_tokens_total")
    with connected(node) as client:
        client.sendall(request(node, max_tokens=LONG, stream=stream, n=2))
        real_node.until(lambda: running(node, 2), "the request to run")
        if stream:
            assert client.recv(4096).startswith(b"HTTP/1.1 200")
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        others = node.tokens(max_tokens=100)
    node.settles()
    assert others == alone
    generated = node.count("drift_core_generation_tokens_total")
    assert generated - before < 2 * LONG
    assert node.count("drift_core_generation_tokens_total") == generated


def test_client_that_vanishes_in_its_own_request(node: real_node.RealNode) -> None:
    whole = request(node, max_tokens=LONG)
    with connected(node) as head, connected(node) as body:
        head.sendall(whole[:20])
        body.sendall(whole[:-5])
        real_node.until(lambda: node.report()["in_flight"] == 1, "the body to be read")
    node.settles()


def test_client_that_vanishes_from_the_queue(node: real_node.RealNode) -> None:
    """It never ran, and those before it are not disturbed."""
    with connected(node) as first, connected(node) as second, connected(node) as waiting:
        for client in (first, second):
            client.sendall(request(node, max_tokens=LONG, n=16, stream=True))
        real_node.until(lambda: running(node, 32), "all places to be taken")
        waiting.sendall(request(node, max_tokens=LONG, n=3))
        real_node.until(lambda: node.report()["waiting"] == 3, "the request to wait")
        waiting.close()
        real_node.until(lambda: node.report()["waiting"] == 0, "the queue to forget it")
        assert running(node, 32)


def test_client_that_reads_a_byte_at_a_time_is_bounded(node: real_node.RealNode) -> None:
    """What it does not read fills the sockets' buffers and the request's share, and then its request ends."""
    alone = node.tokens(max_tokens=100)
    cancelled = node.get("/metrics").raw.decode()
    with connected(node, receive_bytes=4096) as slow, ThreadPoolExecutor(4) as pool:
        slow.sendall(request(node, max_tokens=LONG, n=16, stream=True, logprobs=20))
        assert slow.recv(1)
        others = [pool.submit(node.tokens, max_tokens=100) for _ in range(4)]

        def given_up() -> bool:
            assert slow.recv(1)
            return bool(node.report()["running"] == 0)

        real_node.until(given_up, "the slow request to end")
        assert all(other.result(real_node.DEADLINE_S) == alone for other in others)
        assert node.tokens(max_tokens=100) == alone
    assert _cancelled(node.get("/metrics").raw.decode()) - _cancelled(cancelled) == 16


def _cancelled(metrics: str) -> int:
    (line,) = [line for line in metrics.splitlines() if 'finished_reason="cancelled"' in line]
    return round(float(line.split()[-1]))


def test_full_node_says_when_to_come_again(node: real_node.RealNode) -> None:
    with contextlib.ExitStack() as clients:
        for _ in range(8):
            client = clients.enter_context(connected(node))
            client.sendall(request(node, max_tokens=LONG, n=16, stream=True))
        real_node.until(lambda: node.report()["waiting"] == 96, "every place to be taken")
        reply = node.post("/v1/completions", node.completion())
        assert (reply.status, reply.error["type"]) == (429, "rate_limit_error")
        assert int(reply.headers["retry-after"]) >= 1
        assert "128" in reply.error["message"]
        assert node.get("/healthz").status == node.get("/readyz").status == 200
    node.settles()
    assert node.post("/v1/completions", node.completion()).status == 200


def test_a_thousand_connections_at_once(node: real_node.RealNode) -> None:
    """All are there before the first asks: each is answered, or told to come again."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    fields: dict[str, Any] = {"max_tokens": 4, "prompt": "the quick brown fox"}
    expected = node.post("/v1/completions", node.completion(**fields)).json["choices"]
    statuses, answers = asyncio.run(_crowd(node, request(node, **fields)))
    assert len(statuses) == CROWD
    assert set(statuses) <= {200, 429}
    assert statuses.count(200) >= 128
    assert all(answer == expected for answer in answers)
    node.settles()
    assert node.post("/v1/completions", node.completion(**fields)).json["choices"] == expected


async def _crowd(node: real_node.RealNode, asked: bytes) -> tuple[list[int], list[Any]]:
    """Status of each connection, and the choices of those that were answered."""
    host, port = address(node)
    async with asyncio.timeout(real_node.DEADLINE_S):
        connections = await asyncio.gather(*(asyncio.open_connection(host, port) for _ in range(CROWD)))
        # idle ones cost the others nothing
        reply = await asyncio.to_thread(node.post, "/v1/completions", node.completion())
        assert reply.status == 200

        async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
            writer.write(asked)
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
            return answer

        raw = await asyncio.gather(*(ask(*connection) for connection in connections))
    statuses, answers = [], []
    for answer in raw:
        head, _, body = answer.partition(b"\r\n\r\n")
        statuses.append(int(head.split()[1]))
        if statuses[-1] == 200:
            answers.append(json.loads(body)["choices"])
        else:
            assert b"retry-after: 1" in head.lower()
            assert json.loads(body)["error"]["code"] == "rate_limit_exceeded"
    return statuses, answers
