"""Connections to one node that are kept for the next request."""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import Callable
from urllib.parse import urlsplit

from drift_router.dataplane.upstreams import Loss, Upstream

KEPT = 256
"""Idle connections to one node. Each costs a few KiB here and a file descriptor on both sides."""

KEPT_S = 4.0
"""How long one is kept: less than the 5 s after which uvicorn, and so most engines, closes it."""


OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM})
"""Errors of a connect that say nothing about the node."""

Done = Callable[[Upstream | Loss], None]


class Pool:
    """`connect` calls back with a connection, or with why none came about in time."""

    def __init__(self, url: str, connect_s: float) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host = parts.hostname
        self._port = parts.port or (443 if self._tls else 80)
        shown = f"[{self._host}]" if ":" in self._host else self._host
        self._authority = f"{shown}:{self._port}".encode()
        self._connect_s = connect_s
        self._idle: list[Upstream] = []
        self._busy: set[Upstream] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def quiet(self) -> bool:
        """No request uses it."""
        return not self._busy and not self._tasks

    def take(self) -> Upstream | None:
        """One that is ready; the one used last, so that the others grow old."""
        while self._idle:
            upstream = self._idle.pop()
            if upstream.usable:
                self._busy.add(upstream)
                return upstream
        return None

    def connect(self, done: Done) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._connect(done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _connect(self, done: Done) -> None:
        try:
            async with asyncio.timeout(self._connect_s):
                _, upstream = await asyncio.get_running_loop().create_connection(
                    lambda: Upstream(self._authority, self._released, self._gone),
                    self._host,
                    self._port,
                    ssl=self._tls,
                )
        except (OSError, TimeoutError) as error:
            done(Loss.EXHAUSTED if getattr(error, "errno", None) in OURS else Loss.CONNECT)
            return
        self._busy.add(upstream)
        done(upstream)

    def _make(self) -> Upstream:
        return Upstream(self._authority, self._released, self._gone)

    def sweep(self, now_s: float) -> None:
        """Closes what was idle for long."""
        while self._idle and now_s - self._idle[0].idle_since_s > KEPT_S:
            self._idle.pop(0).abort()

    def close(self) -> None:
        """Idle connections now, busy ones when their answers end."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        for upstream in self._idle:
            upstream.abort()
        self._idle.clear()

    def _released(self, upstream: Upstream) -> None:
        self._busy.discard(upstream)
        if self._closed or len(self._idle) >= KEPT:
            upstream.abort()
            return
        upstream.idle_since_s = asyncio.get_running_loop().time()
        self._idle.append(upstream)

    def _gone(self, upstream: Upstream) -> None:
        self._busy.discard(upstream)
        if upstream in self._idle:
            self._idle.remove(upstream)
