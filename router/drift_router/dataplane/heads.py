"""Request and status lines with their headers, as bytes; and which headers go on to the other side."""

from __future__ import annotations

from http import HTTPStatus

from drift_router.dataplane.requests import Headers

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"expect",
        b"content-length",
    }
)
"""Of one connection, not of the message (RFC 9110, 7.6.1); lengths are ours to state."""

_HARMLESS = frozenset({b"close", b"keep-alive"})

BODILESS = frozenset({204, 304})
"""Answers that have no body, and so no length."""

OURS = b"x-drift-"

_STATUS_LINES = {
    status.value: b"HTTP/1.1 %d %s\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus
}


def forwarded(headers: Headers) -> Headers:
    """Without those of the connection, and those that `connection` names."""
    kept = [pair for pair in headers if pair[0] not in HOP_BY_HOP]
    if len(kept) < len(headers):
        named = {
            token.strip().lower()
            for name, value in headers
            if name == b"connection"
            for token in value.split(b",")
        }
        if named - _HARMLESS:
            return [pair for pair in kept if pair[0] not in named]
    return kept


def request(method: bytes, target: bytes, headers: Headers) -> bytes:
    lines = [b"%s %s HTTP/1.1\r\n" % (method, target)]
    lines += [b"%s: %s\r\n" % pair for pair in headers]
    lines.append(b"\r\n")
    return b"".join(lines)


def answer(status: int, headers: Headers) -> bytes:
    lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
    lines += [b"%s: %s\r\n" % pair for pair in headers]
    lines.append(b"\r\n")
    return b"".join(lines)
