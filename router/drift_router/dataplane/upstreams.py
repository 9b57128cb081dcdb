"""One connection to a node: a request out, its answer in, and then the next.

What arrives is handed to a `Taker`, one call per piece that the socket gave however many chunks it holds. Framing is
taken off here and put on again for the client, so that neither side's depends on the other's.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from typing import Protocol

import httptools

from drift_router.dataplane import heads
from drift_router.dataplane.requests import Headers

HEAD_LIMIT_BYTES = 64 * 1024
"""Of an answer's status line and headers. Names of KV pages take up to 4 KiB."""


FINAL = 200
"""Answers with a lower status only announce one."""


class Loss(enum.StrEnum):
    """How a node failed a request."""

    CONNECT = "connect"  # no connection came about
    CLOSED = "closed"  # it closed a kept connection as we used it: no fault of its
    RESET = "reset"  # the connection broke before the answer began
    BROKEN = "broken"  # it broke within the answer
    GARBAGE = "garbage"  # what it said is not HTTP
    LATE = "late"  # it did not say anything in time
    REFUSED = "refused"  # it said: not here, not now
    EXHAUSTED = "exhausted"  # this machine has no socket left: not the node's fault


class Taker(Protocol):
    """Who waits for an answer."""

    def begins(self, status: int, headers: Headers, length_bytes: int | None) -> None:
        """`length_bytes` None: it ends where it ends."""

    def data(self, data: bytes) -> None: ...

    def ends(self) -> None: ...

    def lost(self, loss: Loss) -> None: ...


class Upstream(asyncio.Protocol):
    """`released` is called when the connection may serve another request, `gone` when it is closed."""

    def __init__(
        self, authority: bytes, released: Callable[[Upstream], None], gone: Callable[[Upstream], None]
    ) -> None:
        self.authority = authority
        """The node's, for the header `host`."""
        self._released = released
        self._gone = gone
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._taker: Taker | None = None
        self._served = 0
        self._headers: Headers = []
        self._head_bytes = 0
        self._begun = False
        self._ended = False
        self._keeps = False
        self._framed = False
        self._paused = False
        self._pieces: list[bytes] = []
        self.idle_since_s = 0.0

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self._gone(self)
        taker = self._leave()
        if taker is None:
            return
        if self._begun and not self._framed and error is None:
            taker.ends()  # its end is the connection's
        elif self._begun:
            taker.lost(Loss.BROKEN)
        else:
            taker.lost(Loss.CLOSED if self._served else Loss.RESET)

    def data_received(self, data: bytes) -> None:
        if self._taker is None:
            self.abort()  # nobody asked
            return
        if not self._begun:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
            garbage = not self._begun and self._head_bytes > HEAD_LIMIT_BYTES
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            garbage = True
        if self._pieces and self._taker is not None:
            pieces, self._pieces = self._pieces, []
            self._taker.data(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if garbage and not self._ended:
            taker = self._leave()
            self.abort()
            if taker is not None:
                taker.lost(Loss.GARBAGE)
        elif self._ended:
            self._end(keep=not garbage)

    # the exchange

    def send(self, head: bytes, body: bytes, taker: Taker) -> None:
        assert self._taker is None
        assert self._transport is not None
        self._taker = taker
        self._headers, self._head_bytes = [], 0
        self._begun = self._ended = self._framed = False
        self._transport.write(head + body)  # as one: two writes are two segments and two system calls

    def pause(self) -> None:
        if self.usable and not self._paused:
            assert self._transport is not None
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        self._paused = False
        if self.usable:
            assert self._transport is not None
            self._transport.resume_reading()

    def abort(self) -> None:
        """Ends the connection; its taker, if any, hears nothing more."""
        self._taker = None
        if self._transport is not None:
            self._transport.abort()

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    # llhttp calls these

    def on_message_begin(self) -> None:
        if self._ended:
            raise httptools.HttpParserError("one answer was asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._begun:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < FINAL:
            return
        self._begun = True
        length: int | None = None
        for name, value in self._headers:
            if name == b"content-length":
                length = int(value)
                self._framed = True
            elif name == b"transfer-encoding":
                self._framed = True
        if status in heads.BODILESS:
            length, self._framed = 0, True  # whatever it says
        if self._taker is not None:
            self._taker.begins(status, self._headers, length)

    def on_body(self, body: bytes) -> None:
        if not self._begun:
            raise httptools.HttpParserError("an announcement has no body")
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        if self._begun:
            self._ended, self._keeps = True, self._parser.should_keep_alive()
        else:
            self._headers = []

    # ends

    def _end(self, *, keep: bool) -> None:
        keep = keep and self._keeps and self.usable
        taker = self._leave()
        self._served += 1
        if keep:
            self._released(self)
        else:
            self.abort()
        if taker is not None:
            taker.ends()

    def _leave(self) -> Taker | None:
        taker, self._taker = self._taker, None
        if self._paused:
            self.resume()
        return taker
