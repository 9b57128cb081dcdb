"""HTTP servers on the addresses of many pods, on one event loop; an idle one costs its socket and nothing else."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Awaitable, Callable

from aiohttp import web

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

FILES = 16_384
"""Descriptors for some hundred pods and everybody who is connected to them."""

CLOSE_S = 0.01
"""For handlers; aiohttp takes 0 for no limit at all."""


class PodSockets:
    def __init__(self) -> None:
        self._open: list[tuple[asyncio.Server, web.Server]] = []
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

    async def open(self, address: str, port: int, handler: Handler) -> None:
        server = web.Server(handler, access_log=None)
        listener = await asyncio.get_running_loop().create_server(server, address, port)
        self._open.append((listener, server))

    async def close(self) -> None:
        """At once, in the middle of answers too."""
        for listener, server in self._open:
            listener.close()
            await server.shutdown(CLOSE_S)
        self._open.clear()
