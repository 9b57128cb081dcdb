"""The label of the pod that leads, over real sockets: a stand-in plays the API server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import test_utils, web
from kubernetes.aio import client

from drift_operator.cluster import leader
from drift_operator.cluster.api import Api
from drift_operator.options import OperatorOptions

OPTIONS = OperatorOptions(
    engine_image="e", router_image="r", own_namespace="drift-system", identity="drift-operator-abc"
)


class StandIn:
    """One pod, and the statuses of answers before it is patched."""

    def __init__(self, *statuses: int) -> None:
        self.labels: dict[str, str] = {"app": "x"}
        self.statuses = list(statuses)

    async def patch(self, request: web.Request) -> web.Response:
        if self.statuses:
            return web.json_response({"reason": "No", "message": "no"}, status=self.statuses.pop(0))
        assert request.content_type == "application/merge-patch+json"
        patch: dict[str, Any] = await request.json()
        for name, value in patch["metadata"]["labels"].items():
            if value is None:
                self.labels.pop(name, None)
            else:
                self.labels[name] = value
        return web.json_response({"metadata": {"labels": self.labels}})


@contextlib.asynccontextmanager
async def reached(stand_in: StandIn) -> AsyncIterator[Api]:
    app = web.Application()
    app.router.add_patch("/api/v1/namespaces/drift-system/pods/drift-operator-abc", stand_in.patch)
    async with test_utils.TestServer(app) as server:
        api = Api(client.ApiClient(client.Configuration(host=str(server.make_url("")).rstrip("/"))))
        try:
            yield api
        finally:
            await api.close()


def test_label_comes_and_goes_with_the_lease() -> None:
    async def run() -> list[dict[str, str]]:
        stand_in = StandIn()
        async with reached(stand_in) as api:
            await leader.show(api, OPTIONS)
            shown = dict(stand_in.labels)
            await leader.hide(api, OPTIONS)
        return [shown, stand_in.labels]

    assert asyncio.run(run()) == [{"app": "x", leader.LABEL: "true"}, {"app": "x"}]


def test_label_is_tried_until_the_api_server_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> dict[str, str]:
        stand_in = StandIn(500, 403, 429)
        async with reached(stand_in) as api:
            await leader.show(api, OPTIONS)
        return stand_in.labels

    monkeypatch.setattr(leader, "RETRY_S", 0.01)
    assert asyncio.run(run())[leader.LABEL] == "true"


@pytest.mark.parametrize("status", [403, 404, 500])
def test_end_waits_for_nobody(status: int) -> None:
    async def run() -> list[int]:
        stand_in = StandIn(status)
        async with reached(stand_in) as api:
            await leader.hide(api, OPTIONS)
        return stand_in.statuses

    assert asyncio.run(run()) == []


def test_operator_that_is_no_pod_has_nothing_to_show() -> None:
    async def run() -> dict[str, str]:
        stand_in = StandIn(404)
        async with reached(stand_in) as api:
            await leader.show(api, OPTIONS)
        return stand_in.labels

    assert leader.LABEL not in asyncio.run(run())
