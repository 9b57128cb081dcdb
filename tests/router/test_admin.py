"""The admin port over a real socket."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import ClientSession, web

from drift_router import admin
from drift_router.discovery.pushed import Update
from drift_router.nodes.addresses import Address
from fake_router import FakeRouter
from router_pictures import status_of

TOKEN = "let-me-in"
DEADLINE_S = 20
AUTHORIZED = {"x-drift-token": TOKEN}
ROUTES = [
    ("GET", "/control/v1/nodes"),
    ("PUT", "/control/v1/nodes"),
    ("GET", "/control/v1/promise"),
    ("PUT", "/control/v1/promise"),
    ("GET", "/control/v1/report"),
]


Ask = Callable[..., Awaitable[tuple[int, Any]]]


def serve(router: FakeRouter, asking: Callable[[Ask], Awaitable[None]], token: str = TOKEN) -> None:
    async def serving() -> None:
        runner = web.AppRunner(admin.create_app(router, token))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = site.name

        async def ask(method: str, path: str, **options: Any) -> tuple[int, Any]:
            async with session.request(method, url + path, **options) as answer:
                text = await answer.text()
                return answer.status, json.loads(text) if "json" in answer.content_type else text

        try:
            async with asyncio.timeout(DEADLINE_S), ClientSession() as session:
                await asking(ask)
        finally:
            await runner.cleanup()

    asyncio.run(serving())


def test_probes_and_metrics_need_no_token() -> None:
    async def asking(ask: Ask) -> None:
        assert await ask("GET", "/healthz") == (200, "ok\n")
        assert await ask("GET", "/readyz") == (200, "ok\n")
        status, text = await ask("GET", "/metrics")
        assert status == 200
        assert 'drift_router_node_eligible{node="a"} 1.0' in text

    serve(FakeRouter(), asking)


def test_ready_means_that_a_request_would_be_served() -> None:
    router = FakeRouter()

    async def asking(ask: Ask) -> None:
        router.nodes, router.problem = [status_of("a", eligible=False)], "the API server is away"
        status, body = await ask("GET", "/readyz")
        assert (status, body["error"]["type"]) == (503, "server_error")
        assert body["error"]["message"] == "none of 1 nodes may be sent requests; the API server is away"
        router.nodes, router.draining = [status_of("a")], True
        assert (await ask("GET", "/readyz"))[0] == 503
        router.answers = False
        assert (await ask("GET", "/readyz"))[0] == 503
        assert (await ask("GET", "/metrics"))[0] == 503
        assert (await ask("GET", "/healthz"))[0] == 200  # the process lives

    serve(router, asking)


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-drift-token": "wrong"},
        {"x-drift-token": ""},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Basic {TOKEN}"},
        {"x-drift-token": "\u00fc"},
    ],
)
def test_control_needs_the_token(method: str, path: str, headers: dict[str, str]) -> None:
    router = FakeRouter()

    async def asking(ask: Ask) -> None:
        status, body = await ask(method, path, headers=headers)
        assert status == 401
        assert body["error"]["code"] == "invalid_control_token"

    serve(router, asking)
    assert router.taken == []


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_without_a_token_of_its_own_control_is_closed(method: str, path: str) -> None:
    async def asking(ask: Ask) -> None:
        assert (await ask(method, path, headers={"x-drift-token": ""}))[0] == 401

    serve(FakeRouter(), asking, token="")


def test_nodes_are_shown_and_pushed() -> None:
    router = FakeRouter()

    async def asking(ask: Ask) -> None:
        status, body = await ask("GET", "/control/v1/nodes", headers={"authorization": f"Bearer {TOKEN}"})
        assert status == 200
        assert body["nodes"][0]["name"] == "a"
        assert body["nodes"][0]["circuit"] == "closed"
        word = {"epoch": 7, "nodes": [{"name": "b", "url": "http://b:1", "weight": 0.5}]}
        assert await ask("PUT", "/control/v1/nodes", headers=AUTHORIZED, json=word) == (
            200,
            {"epoch": 7, "nodes": 1},
        )
        assert router.taken == [Update(7, (Address("b", "http://b:1", weight=0.5),))]
        status, body = await ask("PUT", "/control/v1/nodes", headers=AUTHORIZED, json={**word, "epoch": 6})
        assert (status, body["error"]["code"]) == (409, "stale_epoch")
        assert "epoch: 6 is older than 7" in body["error"]["message"]

    serve(router, asking)


@pytest.mark.parametrize(
    ("data", "status", "message"),
    [
        (b"", 400, "not JSON"),
        (b"{}", 400, "missing required field"),
        (b'{"epoch": 1, "nodes": [{"name": "a", "url": "b"}]}', 400, 'nodes[0]: url: "b" is not of the form'),
        (
            b'{"epoch": 1, "nodes": [{"name": "a", "url": "http://b"}, {"name": "a", "url": "http://c"}]}',
            400,
            "nodes[1].name",
        ),
        (b" " * (admin.MAX_BODY_BYTES + 1), 413, "larger than the maximum"),
    ],
)
def test_a_bad_list_of_nodes_is_refused(data: bytes, status: int, message: str) -> None:
    router = FakeRouter()

    async def asking(ask: Ask) -> None:
        found, body = await ask("PUT", "/control/v1/nodes", headers=AUTHORIZED, data=io.BytesIO(data))
        assert found == status
        assert message in body["error"]["message"]
        assert body["error"]["type"] == "invalid_request_error"

    serve(router, asking)
    assert router.taken == []


def test_where_a_file_says_which_nodes_there_are_nobody_else_does() -> None:
    router = FakeRouter()
    router.pushed = False

    async def asking(ask: Ask) -> None:
        status, body = await ask(
            "PUT", "/control/v1/nodes", headers=AUTHORIZED, json={"epoch": 1, "nodes": []}
        )
        assert (status, body["error"]["message"]) == (409, "the nodes are those of a file")

    serve(router, asking)


def test_the_report_says_how_the_router_does() -> None:
    async def asking(ask: Ask) -> None:
        status, body = await ask("GET", "/control/v1/report", headers=AUTHORIZED)
        assert status == 200
        assert (body["nodes"], body["eligible_nodes"], body["in_flight"], body["workers"]) == (1, 1, 0, 1)
        assert body["promise"] == {"epoch": 3, "ttft_ms": 400.0, "tbt_ms": 80.0, "ttft_per_token_ms": 0.0}
        assert body["totals"]["requests"] == 0

    serve(FakeRouter(), asking)


def test_other_routes_are_answered_in_the_same_shape() -> None:
    async def asking(ask: Ask) -> None:
        status, body = await ask("GET", "/nothing")
        assert (status, body["error"]["message"]) == (404, "no such route: GET /nothing")
        status, body = await ask("POST", "/metrics")
        assert (status, body["error"]["code"]) == (405, "method_not_allowed")
        assert (await ask("GET", "/control/v1/nothing"))[0] == 401

    serve(FakeRouter(), asking)


def test_the_promise_is_shown_and_changed() -> None:
    router = FakeRouter()

    async def asking(ask: Ask) -> None:
        word = {"epoch": 4, "ttft_ms": 600.0, "ttft_per_token_ms": 0.5, "tbt_ms": 50.0}
        assert await ask("PUT", "/control/v1/promise", headers=AUTHORIZED, json=word) == (200, word)
        assert await ask("GET", "/control/v1/promise", headers=AUTHORIZED) == (200, word)
        status, body = await ask("PUT", "/control/v1/promise", headers=AUTHORIZED, json={**word, "epoch": 3})
        assert (status, body["error"]["code"]) == (409, "stale_epoch")

    serve(router, asking)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": 0}, "epoch: 0 is not between 1 and"),
        ({"ttft_ms": 0}, "ttft_ms: 0: Expected float > 0.0"),
        ({"tbt_ms": -1}, "tbt_ms: -1: Expected float > 0.0"),
        ({"ttft_per_token_ms": -1}, "ttft_per_token_ms: -1: Expected float >= 0.0"),
        ({"ttft": 1}, "unknown field ttft"),
    ],
)
def test_a_promise_that_nobody_can_keep_is_refused(change: dict[str, float], message: str) -> None:
    router = FakeRouter()

    async def asking(ask: Ask) -> None:
        word = {"epoch": 4, "ttft_ms": 600.0, "tbt_ms": 50.0, **change}
        status, body = await ask("PUT", "/control/v1/promise", headers=AUTHORIZED, json=word)
        assert (status, body["error"]["code"]) == (400, "invalid_promise")
        assert message in body["error"]["message"]

    serve(router, asking)
    assert router.promised.epoch == 3
