"""HTTP servers in the node's own event loop: uvicorn without its signal handlers, on sockets that the node binds."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from drift_engine.errors import OptionsError

_SEND_BUFFER_BYTES = 256 * 1024
"""The kernel may grow it to megabytes for each of a thousand slow readers; this holds a minute of tokens."""

_BACKLOG = 2048
_KEEP_ALIVE_S = 75
"""Longer than routers and load balancers keep idle connections, so that they close first."""

_CLOSE_S = 2
"""After the drain: answers that still have bytes to send."""


HEADERS_TIMEOUT_S = 30.0
"""From the connection, or a further request's first byte, to the end of its headers. The body has its own time."""


MAX_HEAD_BYTES = 64 * 1024
"""Of a request's line and headers, beyond which no more is read. Twice a router's own limit."""

MAX_CONNECTIONS = 16384
"""To one port; one more is closed. As many as a router takes."""


class Protocol(HttpToolsProtocol):
    """Closes a connection whose headers do not come or do not end, and one too many. Lets an application end one
    in the middle of an answer: with what is buffered for a client that has stopped reading (`drift.abort`), or behind
    it (`drift.close`)."""

    _deadline: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_headers()
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._deadline is not None:
            if self._head_bytes > MAX_HEAD_BYTES:
                self.transport.abort()
                return
            self._head_bytes += len(data)  # with what may be body already: only the next read is too much
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_deadline()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._expect_headers()
        super().on_message_begin()
        self.scope["extensions"] = {
            "drift.abort": {"call": self.transport.abort},
            "drift.close": {"call": self.transport.close},
        }

    def on_headers_complete(self) -> None:
        self._forget_deadline()
        super().on_headers_complete()

    def _expect_headers(self) -> None:
        self._forget_deadline()
        self._head_bytes = 0
        self._deadline = self.loop.call_later(HEADERS_TIMEOUT_S, self.transport.close)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # the node handles signals: two servers would fight over them


def bind(host: str, port: int, option: str) -> socket.socket:
    """A listening socket. Raises OptionsError with what to do."""
    try:
        listener = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=_BACKLOG
        )
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise OptionsError(
                f"{option}: {port} on {host} is in use: stop the program that uses it or choose another port "
                "(0 takes a free one)"
            ) from error
        raise OptionsError(f"{option}: can't listen on {host}:{port}: {error.strerror or error}") from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    # Accepted sockets inherit it. Without it a kept-alive connection's first token waits, 40 ms, until the client has
    # acknowledged the response's headers; asyncio sets it only on sockets that were made with a protocol number.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class HttpServer:
    """One application on one socket, from `start` to `stop`."""

    def __init__(self, app: ASGIApp, listener: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            http=Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_CLOSE_S,
            backlog=_BACKLOG,
        )
        self._server = Server(config)
        self._listener = listener
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._server.serve(sockets=[self._listener]))

    async def stop(self) -> None:
        """Stops accepting, lets answers end for a moment, and closes every connection."""
        assert self._task is not None
        self._server.should_exit = True
        await self._task
        for connection in list(self._server.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()
