"""A client's connection: requests in, their answers out, one at a time and in order."""

from __future__ import annotations

import asyncio
import collections
from typing import Protocol

from drift_router.dataplane import heads
from drift_router.dataplane.refusals import Refusal
from drift_router.dataplane.requests import Headers, Request, RequestParser
from drift_router.options import Limits, Patience

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"

LINGER_S = 2.0
"""After a refusal that ends the connection: what the client still sends is read and dropped, for closing at once
would take the refusal from it (nginx lingers likewise)."""


class Exchange(Protocol):
    """What serves a request."""

    def client_gone(self) -> None: ...

    def client_slow(self) -> None:
        """It does not take what it is sent: send no more."""

    def client_ready(self) -> None: ...


class Server(Protocol):
    """Where connections live."""

    limits: Limits
    patience: Patience
    leaving: bool
    """It will be gone soon: connections end with the answer that they are at."""

    def opened(self, client: Client) -> None: ...

    def closed(self, client: Client) -> None: ...

    def serve(self, request: Request, client: Client) -> None:
        """Begins an exchange; it answers through the client, and ends with `finished`."""

    def refused(self, refusal: Refusal) -> None:
        """What came could not be read as a request."""

    def now_s(self) -> float: ...


class Client(asyncio.Protocol):
    def __init__(self, server: Server) -> None:
        self._server = server
        self._parser = RequestParser(server.limits, self._on_request, self._on_expectation)
        self._transport: asyncio.Transport | None = None
        self._requests: collections.deque[Request] = collections.deque()
        self._refusal: Refusal | None = None  # of what came behind the requests that wait
        self._exchange: Exchange | None = None
        self._request: Request | None = None
        self._chunked = False
        self._paused = False
        self._lingers = False
        self._slow_since_s: float | None = None
        self._since_s = server.now_s()  # in the present state

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=self._server.limits.buffered_bytes)
        self._server.opened(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._server.closed(self)
        self._requests.clear()
        if (exchange := self._exchange) is not None:
            self._exchange = None
            exchange.client_gone()

    def data_received(self, data: bytes) -> None:
        if self._lingers or self._refusal is not None:
            return
        was_idle, was_in_head = self._parser.idle, self._parser.in_head
        try:
            self._parser.feed(data)
        except Refusal as refusal:
            self._refusal = refusal
            if self._request is None:
                self._refuse_the_rest()
            return
        if was_idle or (was_in_head and not self._parser.in_head):
            self._since_s = self._server.now_s()
        if len(self._requests) >= self._server.limits.pipelined and not self._paused:
            assert self._transport is not None
            self._paused = True
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        self._slow_since_s = self._server.now_s()
        if self._exchange is not None:
            self._exchange.client_slow()

    def resume_writing(self) -> None:
        self._slow_since_s = None
        if self._exchange is not None:
            self._exchange.client_ready()

    # requests

    def _on_request(self, request: Request) -> None:
        self._requests.append(request)
        if self._request is None:
            self._next()

    def _on_expectation(self) -> None:
        if self._request is None and not self._requests:
            assert self._transport is not None
            self._transport.write(CONTINUE)

    def _next(self) -> None:
        self._request = self._requests.popleft()
        self._server.serve(self._request, self)

    def attach(self, exchange: Exchange) -> None:
        """It wants to hear of this client until `finished`."""
        self._exchange = exchange

    @property
    def held_bytes(self) -> int:
        """Of requests that are not served yet."""
        return self._parser.held_bytes + sum([len(request.body) for request in self._requests])

    @property
    def is_slow(self) -> bool:
        return self._slow_since_s is not None

    # answers

    def begin(self, status: int, headers: Headers, length_bytes: int | None, first: bytes = b"") -> None:
        """`length_bytes` None: the answer ends with `finish`. `headers` lack those of the connection."""
        request = self._request
        assert request is not None
        assert self._transport is not None
        lines = list(headers)
        if self._server.leaving:
            request.keeps_alive = False
        self._chunked = length_bytes is None and request.newest
        if status in heads.BODILESS:
            assert not first
        elif length_bytes is not None:
            lines.append((b"content-length", b"%d" % length_bytes))
        elif self._chunked:
            lines.append((b"transfer-encoding", b"chunked"))
        else:
            request.keeps_alive = False  # HTTP/1.0: the answer's end is the connection's
        if not request.keeps_alive:
            lines.append((b"connection", b"close"))
        elif not request.newest:
            lines.append((b"connection", b"keep-alive"))
        head = heads.answer(status, lines)
        self._transport.write(head + self._framed(first) if first else head)

    def write(self, data: bytes) -> None:
        if data:
            assert self._transport is not None
            self._transport.write(self._framed(data))

    def finish(self, *, whole: bool = True) -> None:
        """`whole` False: the answer broke off, which its client must be able to tell."""
        request, self._request = self._request, None
        assert request is not None
        assert self._transport is not None
        self._exchange = None
        if not whole:
            self._transport.close()
            return
        if self._chunked:
            self._transport.write(LAST_CHUNK)
        if not request.keeps_alive:
            self._requests.clear()
            self._transport.close()
            return
        self._since_s = self._server.now_s()
        if self._transport.is_closing():
            return
        if self._requests:
            # not from within the answer before: a thousand pipelined refusals would be a thousand frames deep
            asyncio.get_running_loop().call_soon(self._go_on)
        elif self._refusal is not None:
            self._refuse_the_rest()
        else:
            self._read_on()

    def refuse(self, refusal: Refusal) -> None:
        """Answers with an error."""
        assert self._request is not None
        if refusal.close:
            self._request.keeps_alive = False
        body = refusal.body()
        self.begin(
            refusal.status, [(b"content-type", b"application/json"), *refusal.headers], len(body), body
        )
        self.finish()

    def close(self) -> None:
        """No further request on this connection; the one that is served is not cut."""
        if self._request is None:
            if self._transport is not None:
                self._transport.close()
        else:
            self._request.keeps_alive = False

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def sweep(self, now_s: float) -> None:
        """Ends what takes too long."""
        patience = self._server.patience
        if self._slow_since_s is not None:
            if now_s - self._slow_since_s > patience.stalled_s:
                self.abort()
        elif self._lingers:
            if now_s - self._since_s > LINGER_S:
                self.abort()
        elif self._request is not None:
            return  # its exchange looks after itself
        elif self._parser.idle:
            if now_s - self._since_s > patience.kept_alive_s:
                self.close()
        elif now_s - self._since_s > (patience.head_s if self._parser.in_head else patience.body_s):
            what = "headers" if self._parser.in_head else "body"
            self._refusal = Refusal(408, f"the request's {what} did not come in time", close=True)
            self._refuse_the_rest()

    def _go_on(self) -> None:
        if self._request is None and self._requests and self._transport is not None:
            if self._transport.is_closing():
                return
            self._next()
            self._read_on()

    def _read_on(self) -> None:
        if self._paused and len(self._requests) < self._server.limits.pipelined:
            assert self._transport is not None
            self._paused = False
            self._transport.resume_reading()

    def _refuse_the_rest(self) -> None:
        """Answers what can't be read, and ends the connection once the client has had the time to read that."""
        refusal, transport = self._refusal, self._transport
        assert refusal is not None
        assert transport is not None
        self._server.refused(refusal)
        body = refusal.body()
        headers = [
            (b"content-type", b"application/json"),
            *refusal.headers,
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        transport.write(heads.answer(refusal.status, headers) + body)
        self._lingers, self._since_s = True, self._server.now_s()

    def _framed(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data
