"""Polling over real sockets: what a node answers, and what the registry makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec
import pytest
from aiohttp import web

import node_reports
from drift_engine import wire
from drift_router.nodes import reporting
from drift_router.nodes.addresses import Address
from drift_router.nodes.health import State
from drift_router.nodes.registry import Registry
from drift_router.nodes.reporting import Reporting
from drift_router.nodes.statuses import NodeStatus
from drift_router.snapshots import IndexState
from waiting import DEADLINE_S, until

TOKEN = "let-me-in"

REPORT = node_reports.report(
    node="a",
    model="m",
    mode=wire.Mode.FUSED,
    queued_tokens=123,
    kv_pages_total=10,
    prefill_tokens_per_s=1000.0,
    tbt_p50_ms=1.0,
    tbt_p99_ms=2.0,
    uptime_s=50.0,
)


class Index:
    def state(self, slot: int) -> IndexState:
        return IndexState.FALLBACK


@dataclass
class Server:
    """Answers every path with what `answers` has for it, else 404; remembers what it was asked."""

    answers: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]]
    asked: list[str] = field(default_factory=list)
    url: str = ""

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/{rest:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = site.name

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        handler = self.answers.get(request.path)
        return await handler(request) if handler is not None else web.Response(status=404)


def says(status: int = 200, body: bytes = b"") -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body)

    return answer


async def reports(request: web.Request) -> web.StreamResponse:
    right = request.headers.get("x-drift-token") == TOKEN
    return web.Response(body=msgspec.json.encode(REPORT)) if right else web.Response(status=401)


def run(
    server: Server,
    wanted: Callable[[NodeStatus], bool],
    *,
    ours: bool = False,
    token: str = TOKEN,
    monkeypatch: pytest.MonkeyPatch,
) -> NodeStatus:
    """Polls one node until its status is as wanted, and gives that."""
    for name in ("REPORT_INTERVAL_S", "LIFE_INTERVAL_S"):
        monkeypatch.setattr(reporting, name, 0.01)

    async def polling() -> NodeStatus:
        await server.start()
        registry = Registry(Index(), lambda slot: None)
        registry.set_nodes([Address("n", server.url, server.url if ours else None)], 0.0)
        polls = Reporting(registry, token)
        await polls.start()
        try:
            await until(lambda: wanted(registry.status(0.0)[0]))
        finally:
            await polls.close()
            await server.stop()
        return registry.status(0.0)[0]

    return asyncio.run(polling())


def healthy(status: NodeStatus) -> bool:
    return status.health is State.HEALTHY


def unhealthy(status: NodeStatus) -> bool:
    return status.problem != "" and status.health is not State.HEALTHY


def test_a_report_is_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server({"/control/v1/report": reports})
    status = run(server, healthy, ours=True, monkeypatch=monkeypatch)
    assert status.report == REPORT
    assert status.problem == ""


@pytest.mark.parametrize("status", [401, 404])
def test_a_node_that_refuses_its_report_still_serves(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(Server({"/control/v1/report": says(status)}), healthy, ours=True, monkeypatch=monkeypatch)
    assert found.report is None
    assert str(status) in found.problem


def test_so_does_one_of_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server({"/control/v1/report": says(200, b'{"node": "a"}')})
    found = run(server, healthy, ours=True, monkeypatch=monkeypatch)
    assert "missing required field" in found.problem


async def _hangs(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(DEADLINE_S)
    return web.Response()


async def _endless(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse()
    await answer.prepare(request)
    while True:
        await answer.write(b" " * 65536)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (says(500), "500"),
        (says(200, b"<html>"), "not JSON"),
        (says(200, b"\xff\xfe"), "not JSON"),
        (_endless, "longer than"),
        (_hangs, "no answer within"),
    ],
    ids=["500", "html", "bytes", "endless", "hangs"],
)
def test_an_answer_that_is_none_is_a_miss(
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]],
    problem: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reporting, "DEADLINE_S", 0.3)
    status = run(Server({"/control/v1/report": answer}), unhealthy, ours=True, monkeypatch=monkeypatch)
    assert problem in status.problem


def test_without_a_token_ours_are_asked_as_others(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server({"/health": says(200)})
    run(server, healthy, ours=True, token="", monkeypatch=monkeypatch)
    assert set(server.asked) == {"/health"}


@pytest.mark.parametrize("models", [200, 401, 404])
def test_a_server_without_health_is_asked_for_its_models(
    models: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may want a key for them, or not have them either: it lives."""
    server = Server({"/v1/models": says(models)})
    run(server, healthy, monkeypatch=monkeypatch)
    assert server.asked[:2] == ["/health", "/v1/models"]


def test_a_server_that_is_loading_is_not_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    status = run(Server({"/health": says(503)}), unhealthy, monkeypatch=monkeypatch)
    assert status.problem == "/health answered 503"


def test_nodes_come_and_go_while_it_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "LIFE_INTERVAL_S", 0.01)

    async def polling() -> None:
        first, second = Server({"/health": says(200)}), Server({"/health": says(200)})
        await first.start()
        await second.start()
        registry = Registry(Index(), lambda slot: None)
        polls = Reporting(registry, TOKEN)
        await polls.start()
        try:
            for server in (first, second):
                registry.set_nodes([Address("n", server.url)], 0.0)
                polls.sync()
                await until(lambda: len(registry.snapshot(0.0)) == 1)
            left = len(first.asked)
            registry.set_nodes([Address("n", second.url, weight=0.5)], 0.0)
            polls.sync()
            asked = len(second.asked)
            await until(lambda: len(second.asked) >= asked + 3)
            assert len(first.asked) <= left + 1
        finally:
            await polls.close()
            await first.stop()
            await second.stop()

    asyncio.run(polling())


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "LIFE_INTERVAL_S", 0.01)

    async def polling() -> str:
        registry = Registry(Index(), lambda slot: None)
        registry.set_nodes([Address("n", "http://127.0.0.1:1")], 0.0)
        polls = Reporting(registry, TOKEN)
        await polls.start()
        try:
            await until(lambda: registry.status(0.0)[0].health is State.UNHEALTHY)
        finally:
            await polls.close()
        return registry.status(0.0)[0].problem

    assert asyncio.run(polling()).startswith("no connection: ")


def test_many_nodes_are_asked_less_often() -> None:
    """And an old report is then an older one."""

    async def intervals(count: int) -> float:
        registry = Registry(Index(), lambda slot: None)
        registry.set_nodes([Address(f"n{i}", f"http://127.0.0.1:{i + 1}") for i in range(count)], 0.0)
        polls = Reporting(registry, "")
        await polls.start()
        await polls.close()
        return registry.stale_s

    assert asyncio.run(intervals(8)) == 2.0
    assert asyncio.run(intervals(2000)) == pytest.approx(24.0)
