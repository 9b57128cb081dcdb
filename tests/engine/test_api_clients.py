"""Clients that vanish, stall, or come all at once: their requests end, and others' tokens are not disturbed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Any

import aiohttp
import openai
import pytest

import api_node
import fake_core
import http_calls
from drift_engine.api import answers, errors, flights, gate
from drift_engine.api.admission import Admission
from drift_engine.node import serving

HELLO: Any = [{"role": "user", "content": "hi"}]
CHAT: Any = {"model": "small", "messages": HELLO}
LONG = " dog" * 1500


@pytest.fixture(scope="module")
def node() -> Iterator[api_node.ApiNode]:
    with api_node.node() as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_is_left(node: api_node.ApiNode) -> Iterator[None]:
    node.reply(None)
    yield
    node.until(lambda: not node.core.running)
    assert node.call(lambda: node.context.admission.idle(10))
    assert node.context.link.open_requests == 0


def send(node: api_node.ApiNode, body: Any) -> socket.socket:
    host, port = node.url.removeprefix("http://").split(":")
    raw = json.dumps(body).encode()
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(20)
    connection.connect((host, int(port)))
    connection.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%b" % (len(raw), raw)
    )
    return connection


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_vanishes_before_its_answer(node: api_node.ApiNode, stream: bool) -> None:
    before = len(node.core.submitted)
    with node.stalled():
        connection = send(node, {**CHAT, "n": 2, "stream": stream})
        node.until(lambda: len(node.core.submitted) == before + 2)
        requests = {submit.request_id for submit in node.core.submitted[before:]}
        connection.close()
        node.until(lambda: requests <= node.core.cancelled)


def test_a_client_that_vanishes_mid_stream(node: api_node.ApiNode) -> None:
    text = " dog" * 600
    node.answer(text)
    other = openai.OpenAI(base_url=f"{node.url}/v1", api_key="x", max_retries=0)
    with other:
        stream = other.chat.completions.create(model="small", messages=HELLO, stream=True)
        first = next(iter(stream))
        request_id = node.last.request_id
        with send(node, {**CHAT, "stream": True}) as connection:
            connection.recv(100)
            vanished = node.last.request_id
        node.until(lambda: vanished in node.core.cancelled)
        rest = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert request_id not in node.core.cancelled
    assert (first.choices[0].delta.content or "") + rest == text


def test_the_client_library_cancels(node: api_node.ApiNode) -> None:
    async def ask() -> None:
        async with openai.AsyncOpenAI(base_url=f"{node.url}/v1", api_key="x", max_retries=0) as client:
            task = asyncio.create_task(client.chat.completions.create(model="small", messages=HELLO))
            await asyncio.to_thread(node.until, lambda: len(node.core.submitted) > before)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    before = len(node.core.submitted)
    with node.stalled():
        asyncio.run(ask())
        node.until(lambda: node.last.request_id in node.core.cancelled)


def test_a_client_that_stops_reading(node: api_node.ApiNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernel buffers fill, then the node's; then the time for a stalled write is up."""
    monkeypatch.setattr(answers, "STALL_S", 0.3)
    node.answer(LONG)
    before = len(node.core.cancelled)
    stream = {**CHAT, "stream": True, "n": 16, "logprobs": True, "top_logprobs": 20}
    with send(node, stream):
        node.until(lambda: len(node.core.cancelled) == before + 16)


def test_a_slow_reader_is_given_up_before_its_backlog_grows(
    node: api_node.ApiNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flights, "BACKLOG_TOKENS", 64)
    node.answer(LONG)
    before = len(node.core.cancelled)
    with send(node, {**CHAT, "stream": True, "n": 16, "logprobs": True, "top_logprobs": 20}):
        node.until(lambda: len(node.core.cancelled) > before)


def test_a_body_that_never_comes(node: api_node.ApiNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "BODY_TIMEOUT_S", 0.2)
    host, port = node.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(
            b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"content-length: 100\r\n\r\n{"
        )
        assert connection.recv(65536).startswith(b"HTTP/1.1 408 ")


def test_headers_without_end(node: api_node.ApiNode) -> None:
    host, port = node.url.removeprefix("http://").split(":")
    line = b"x-filler: " + b"a" * 1000 + b"\r\n"
    with (
        socket.create_connection((host, int(port)), timeout=20) as connection,
        contextlib.suppress(ConnectionError),
    ):
        connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n")
        for _ in range(64 * 1024):  # 64 MiB
            connection.sendall(line)
        raise AssertionError("all of it was read")
    assert http_calls.get(node.url, "/healthz").status == 200


def test_headers_of_sixty_kilobytes_are_taken(node: api_node.ApiNode) -> None:
    assert http_calls.get(node.url, "/healthz", {"x-filler": "a" * 60_000}).status == 200


def test_one_more_connection_than_may_be_is_closed(
    node: api_node.ApiNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, port = node.url.removeprefix("http://").split(":")
    monkeypatch.setattr(serving, "MAX_CONNECTIONS", 0)
    with (
        socket.create_connection((host, int(port)), timeout=20) as connection,
        contextlib.suppress(ConnectionError),
    ):
        assert connection.recv(1) == b""
    monkeypatch.undo()
    assert http_calls.get(node.url, "/healthz").status == 200


def test_bodies_together_have_a_budget() -> None:
    admission = Admission(limit=10, body_budget_bytes=100)
    first, second = admission.enter(), admission.enter()
    first.hold(60)
    with pytest.raises(errors.ApiError) as refused:
        second.hold(60)
    assert refused.value.status == 429
    first.leave()
    first.leave()
    second.hold(100)
    second.leave()
    assert admission.answering == 0


def test_a_thousand_connections_at_once() -> None:
    """Those beyond the limit are told to come back; the others get their whole answer."""

    async def ask(session: aiohttp.ClientSession, url: str) -> tuple[int, str | None, str]:
        async with session.post(f"{url}/v1/chat/completions", json=CHAT) as response:
            body = await response.json()
            text = body["choices"][0]["message"]["content"] if response.status == 200 else ""
            return response.status, response.headers.get("retry-after"), text

    async def ask_all(node: api_node.ApiNode) -> list[tuple[int, str | None, str]]:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            tasks = [asyncio.create_task(ask(session, node.url)) for _ in range(1000)]
            await asyncio.to_thread(node.until, lambda: len(node.core.submitted) == 80)
            node.call(lambda: node.core.flowing.set())
            return await asyncio.gather(*tasks)

    with api_node.node(max_running=16, max_waiting=64) as node:
        node.call(lambda: node.core.flowing.clear())
        found = asyncio.run(ask_all(node))
        assert {status for status, _, _ in found} == {200, 429}
        assert all(text == fake_core.ANSWER for status, _, text in found if status == 200)
        assert all(retry == "1" for status, retry, _ in found if status == 429)
        assert sum(status == 200 for status, _, _ in found) >= 80
        rejected = http_calls.metric(node.url, "drift_requests_rejected_total", reason="full")
        assert rejected == sum(status == 429 for status, _, _ in found)
        assert node.call(lambda: node.context.admission.idle(5))


def test_choices_count_as_requests() -> None:
    with api_node.node(max_running=2, max_waiting=1) as node:
        reply = http_calls.post(node.url, "/v1/chat/completions", {**CHAT, "n": 4})
        assert (reply.status, reply.headers["retry-after"]) == (429, "1")
        assert "3 requests" in reply.error["message"]
        assert not node.core.submitted
        assert http_calls.post(node.url, "/v1/chat/completions", {**CHAT, "n": 3}).status == 200
