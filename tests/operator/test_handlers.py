"""The watch of DriftServices by kopf, over real sockets: a stand-in plays the API server."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import test_utils, web

from drift_operator import crd, driftservice, handlers

Object = dict[str, Any]

GROUP, VERSION = driftservice.GROUP, driftservice.VERSION
BODY: Object = {
    "apiVersion": driftservice.API_VERSION,
    "kind": driftservice.KIND,
    "metadata": {"name": "chat", "namespace": "team", "uid": "1", "resourceVersion": "1", "generation": 1},
    "spec": {},
}
DEADLINE_S = 30


class StandIn:
    """One DriftService. The first watches are refused with `statuses`, and later ones stay open."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.ended = asyncio.Event()

    async def groups(self, _: web.Request) -> web.Response:
        version = {"groupVersion": driftservice.API_VERSION, "version": VERSION}
        return web.json_response(
            {"groups": [{"name": GROUP, "versions": [version], "preferredVersion": version}]}
        )

    async def versions(self, _: web.Request) -> web.Response:
        return web.json_response({"versions": ["v1"]})

    async def core(self, _: web.Request) -> web.Response:
        return web.json_response(
            {"resources": [resource("namespaces", "Namespace"), resource("events", "Event")]}
        )

    async def ours(self, _: web.Request) -> web.Response:
        return web.json_response({"resources": [resource(crd.PLURAL, driftservice.KIND)]})

    async def services(self, request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            found = {"kind": "List", "metadata": {"resourceVersion": "1"}, "items": [BODY]}
            return web.json_response(found)
        if self.statuses:
            refused = {"kind": "Status", "code": self.statuses[0], "message": "no"}
            return web.json_response(refused, status=self.statuses.pop(0))
        stream = web.StreamResponse()
        await stream.prepare(request)
        await self.ended.wait()
        return stream


def resource(plural: str, kind: str) -> Object:
    return {
        "name": plural,
        "singularName": kind.lower(),
        "namespaced": plural != "namespaces",
        "kind": kind,
        "verbs": ["get", "list", "watch", "create", "patch"],
    }


class Bed:
    """A watch of one namespace, and a task for each time that it told of a service."""

    def __init__(self, stand_in: StandIn) -> None:
        self.stand_in = stand_in
        self.stop = asyncio.Event()
        self.tasks: list[asyncio.Task[bool]] = []
        self.told = asyncio.Event()

    def see(self, body: Object, deleted: bool) -> None:
        assert not deleted
        assert body["metadata"]["name"] == "chat"
        self.tasks.append(asyncio.create_task(asyncio.Event().wait()))
        self.told.set()


@contextlib.asynccontextmanager
async def watched(bed: Bed, use: Callable[[str], None]) -> AsyncIterator[asyncio.Task[None]]:
    """`use` makes a server's address that of the cluster."""
    app = web.Application()
    app.router.add_get("/api", bed.stand_in.versions)
    app.router.add_get("/api/v1", bed.stand_in.core)
    app.router.add_get("/apis", bed.stand_in.groups)
    app.router.add_get(f"/apis/{driftservice.API_VERSION}", bed.stand_in.ours)
    app.router.add_get(
        f"/apis/{driftservice.API_VERSION}/namespaces/team/{crd.PLURAL}", bed.stand_in.services
    )
    async with test_utils.TestServer(app) as server, asyncio.timeout(DEADLINE_S):
        use(str(server.make_url("")))
        running = asyncio.create_task(handlers.run(bed.see, ("team",), bed.stop))
        try:
            yield running
        finally:
            bed.stand_in.ended.set()
            for task in (running, *bed.tasks):
                task.cancel()
            await asyncio.gather(running, *bed.tasks, return_exceptions=True)


@pytest.fixture
def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    config = tmp_path / "config"
    monkeypatch.setenv("KUBECONFIG", str(config))

    def write(url: str) -> None:
        found = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "it",
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
            "clusters": [{"name": "it", "cluster": {"server": url}}],
            "users": [{"name": "it", "user": {"token": "token"}}],
        }
        config.write_text(json.dumps(found))

    return write


def test_a_watch_that_is_refused_is_opened_again_and_takes_nothing_with_it(
    use: Callable[[str], None],
) -> None:
    async def run() -> None:
        bed = Bed(StandIn(410))
        async with watched(bed, use) as running:
            await bed.told.wait()
            bed.told.clear()
            await bed.told.wait()  # it listed anew
            assert not bed.stand_in.statuses, "it was refused"
            assert not any(task.done() for task in bed.tasks)
            bed.stop.set()
            await running

    asyncio.run(run())


def test_who_loses_the_lease_hears_of_nothing_any_more_and_may_watch_again(
    use: Callable[[str], None],
) -> None:
    async def run() -> None:
        bed = Bed(StandIn())
        async with watched(bed, use) as running:
            await bed.told.wait()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            assert len(bed.tasks) == 1
            assert not bed.tasks[0].done()
            bed.told.clear()
            again = asyncio.create_task(handlers.run(bed.see, ("team",), bed.stop))
            await bed.told.wait()
            bed.stop.set()
            await again

    asyncio.run(run())
