"""Bytes of a client's connection to requests, strictly: what two parsers could read differently is refused.

llhttp (`httptools`) does the framing and refuses conflicting lengths, bad chunk sizes, folded lines, bare line feeds
and control characters. Here are the limits, and the few rules that it leaves to its user.
"""

from __future__ import annotations

from collections.abc import Callable

import httptools
import msgspec

from drift_router.dataplane import refusals
from drift_router.dataplane.refusals import Refusal
from drift_router.options import Limits

Headers = list[tuple[bytes, bytes]]
"""Names in lower case, in the order in which they came."""

VERSIONS = ("1.1", "1.0")

SINGLE = (b"host", b"authorization", b"content-type", b"expect", b"x-request-id")
"""Two of these would let two readers see two different requests."""


class Request(msgspec.Struct):
    """One whole request."""

    method: bytes
    target: bytes
    """As it came; `path` is without its query."""
    headers: Headers
    body: bytes
    newest: bool
    """Spoken in HTTP/1.1: its answer may be chunked."""
    keeps_alive: bool

    @property
    def path(self) -> bytes:
        return self.target.partition(b"?")[0]

    def header(self, name: bytes) -> bytes | None:
        for key, value in self.headers:
            if key == name:
                return value
        return None


class _Half(msgspec.Struct):
    """A request whose end has not come."""

    target: bytes = b""
    headers: Headers = []
    method: bytes = b""
    newest: bool = True
    pieces: list[bytes] = []
    body_bytes: int = 0
    complete_head: bool = False


class RequestParser:
    """Feeds requests to `on_request`, in order; `on_expectation` hears of a client that waits for 100 Continue.

    `feed` raises Refusal (always with `close`); nothing may be fed after that.
    """

    def __init__(
        self,
        limits: Limits,
        on_request: Callable[[Request], None],
        on_expectation: Callable[[], None],
    ) -> None:
        self._limits = limits
        self._on_request = on_request
        self._on_expectation = on_expectation
        self._parser = httptools.HttpRequestParser(self)
        self._half: _Half | None = None
        self._head_bytes = 0
        self._refusal: Refusal | None = None

    @property
    def idle(self) -> bool:
        """Between two requests."""
        return self._half is None

    @property
    def in_head(self) -> bool:
        return self._half is not None and not self._half.complete_head

    @property
    def held_bytes(self) -> int:
        """Of a body that is still coming."""
        return 0 if self._half is None else self._half.body_bytes

    def feed(self, data: bytes) -> None:
        """Raises Refusal."""
        if self._half is None or not self._half.complete_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # the request itself is whole and was handed on; what follows is in another language
            raise refusals.malformed("another protocol on this connection is not supported") from None
        except httptools.HttpParserCallbackError:
            assert self._refusal is not None
            raise self._refusal from None
        except httptools.HttpParserInvalidMethodError:
            raise Refusal(501, "the request's method is unknown", close=True) from None
        except httptools.HttpParserError as error:
            raise refusals.malformed(f"the request can't be read: {error}") from None
        if self._half is None or self._half.complete_head:
            self._head_bytes = 0
        elif self._head_bytes > self._limits.head_bytes:
            raise self._too_long_a_head()

    # llhttp calls these

    def on_message_begin(self) -> None:
        self._half = _Half()

    def on_url(self, url: bytes) -> None:
        assert self._half is not None
        self._half.target += url
        if len(self._half.target) > self._limits.head_bytes:
            self._refuse(self._too_long_a_head())

    def on_header(self, name: bytes, value: bytes) -> None:
        assert self._half is not None
        if self._half.complete_head:
            return  # a trailer: nobody asked for it
        self._half.headers.append((name.lower(), value))
        if len(self._half.headers) > self._limits.headers:
            limit = self._limits.headers
            self._refuse(Refusal(431, f"the request has more than {limit} headers", close=True))

    def on_headers_complete(self) -> None:
        half = self._half
        assert half is not None
        half.complete_head = True
        size = len(half.target) + sum([len(name) + len(value) for name, value in half.headers])
        if size > self._limits.head_bytes:
            self._refuse(self._too_long_a_head())
        version = self._parser.get_http_version()
        half.newest, half.method = version == "1.1", self._parser.get_method()
        if version not in VERSIONS:
            self._refuse(Refusal(505, f"HTTP/{version} is not spoken here", close=True))
        seen: dict[bytes, bytes] = {}
        for name, value in half.headers:
            if name in SINGLE and name in seen:
                self._refuse(refusals.malformed(f"the header {name.decode('latin-1')} came twice"))
            seen[name] = value
        if half.newest and b"host" not in seen:
            self._refuse(refusals.malformed("the header host is missing"))
        if not half.newest and b"transfer-encoding" in seen:
            self._refuse(refusals.malformed("HTTP/1.0 has no transfer-encoding"))
        if int(seen.get(b"content-length", b"0")) > self._limits.body_bytes:
            self._refuse(refusals.too_large("the request's body", self._limits.body_bytes))
        if b"expect" in seen and half.newest:
            if seen[b"expect"].lower() != b"100-continue":
                self._refuse(Refusal(417, "only 100-continue may be expected", close=True))
            self._on_expectation()

    def on_body(self, body: bytes) -> None:
        half = self._half
        assert half is not None
        half.body_bytes += len(body)
        if half.body_bytes > self._limits.body_bytes:
            self._refuse(refusals.too_large("the request's body", self._limits.body_bytes))
        half.pieces.append(body)

    def on_message_complete(self) -> None:
        half = self._half
        assert half is not None
        self._half, self._head_bytes = None, 0
        pieces = half.pieces
        self._on_request(
            Request(
                half.method,
                half.target,
                half.headers,
                pieces[0] if len(pieces) == 1 else b"".join(pieces),
                half.newest,
                self._parser.should_keep_alive(),
            )
        )

    def _too_long_a_head(self) -> Refusal:
        limit = self._limits.head_bytes
        return Refusal(431, f"the request's line and headers are longer than {limit} bytes", close=True)

    def _refuse(self, refusal: Refusal) -> None:
        self._refusal = refusal
        raise refusal
