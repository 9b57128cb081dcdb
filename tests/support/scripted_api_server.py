"""Kubernetes' API server for one Service's EndpointSlices, over a real socket, that fails as a test says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web

Slice = dict[str, Any]
Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse]]


def endpoint(
    name: str,
    ip: str,
    *,
    ready: bool | None = True,
    terminating: bool | None = None,
) -> dict[str, Any]:
    conditions = {"ready": ready, "serving": ready, "terminating": terminating}
    return {
        "addresses": [ip],
        "conditions": {key: value for key, value in conditions.items() if value is not None},
        "targetRef": {"kind": "Pod", "name": name},
    }


def slice_of(name: str, *endpoints: dict[str, Any], family: str = "IPv4") -> Slice:
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "chat-nodes"}},
        "addressType": family,
        "endpoints": list(endpoints),
        "ports": [{"name": "api", "port": 8000}, {"name": "control", "port": 8001}],
    }


@dataclass
class ScriptedApiServer:
    port: int = 0
    accepted: set[str] = field(default_factory=lambda: {"token"})
    """Tokens."""
    slices: dict[str, Slice] = field(default_factory=dict)
    lists: int = 0
    watches: list[dict[str, str]] = field(default_factory=list)
    """What each watch asked for."""
    listing: Behaviour | None = None
    watching: Behaviour | None = None
    """Instead of what a good server does."""
    deaf: bool = False
    """Changes are not told to those who watch."""
    _version: int = 1
    _events: list[tuple[int, bytes]] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _open: list[web.Request] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def watched(self) -> int:
        """Watches that are open."""
        return len(self._open)

    def put(self, one: Slice) -> None:
        name = one["metadata"]["name"]
        self._tell("MODIFIED" if name in self.slices else "ADDED", one)
        self.slices[name] = one

    def delete(self, name: str) -> None:
        self._tell("DELETED", self.slices.pop(name))

    def break_watches(self) -> None:
        for request in self._open:
            assert request.transport is not None
            request.transport.abort()

    def _tell(self, kind: str, one: Slice) -> None:
        self._version += 1
        line = msgspec.json.encode({"type": kind, "object": one}) + b"\n"
        self._events.append((self._version, line))
        if not self.deaf:
            self._changed.set()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("authorization", "").removeprefix("Bearer ") not in self.accepted:
            return web.json_response({"kind": "Status", "code": 401, "message": "Unauthorized"}, status=401)
        assert request.query["labelSelector"] == "kubernetes.io/service-name=chat-nodes"
        if "watch" in request.query:
            self.watches.append(dict(request.query))
            return await (self.watching or self._watch)(request)
        self.lists += 1
        return await (self.listing or self._list)(request)

    async def _list(self, request: web.Request) -> web.StreamResponse:
        metadata = {"resourceVersion": str(self._version)}
        return web.json_response({"metadata": metadata, "items": list(self.slices.values())})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        after = int(request.query["resourceVersion"])
        response = web.StreamResponse()
        await response.prepare(request)
        self._open.append(request)
        try:
            while True:
                for version, line in [] if self.deaf else self._events:
                    if version > after:
                        await response.write(line)
                        after = version
                await self._changed.wait()
                self._changed.clear()
        finally:
            self._open.remove(request)


GONE = b'{"type":"ERROR","object":{"kind":"Status","status":"Failure","reason":"Expired","code":410}}\n'


def says(body: bytes, status: int = 200) -> Behaviour:
    async def behave(request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, status=status)

    return behave


async def hangs(request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def is_silent(request: web.Request) -> web.StreamResponse:
    """Begins an answer, and says nothing."""
    response = web.StreamResponse()
    await response.prepare(request)
    return await hangs(request)


@contextlib.asynccontextmanager
async def serving(server: ScriptedApiServer) -> AsyncIterator[ScriptedApiServer]:
    """On the port that it had before, if it had one."""
    app = web.Application()
    app.router.add_get("/apis/discovery.k8s.io/v1/namespaces/prod/endpointslices", server._answer)
    runner = web.AppRunner(app, shutdown_timeout=0.01, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", server.port, reuse_address=True).start()
    server.port = runner.addresses[0][1]
    try:
        yield server
    finally:
        server.break_watches()
        await runner.cleanup()
