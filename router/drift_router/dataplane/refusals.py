"""What the router itself answers when it can't serve: errors in OpenAI's shape."""

from __future__ import annotations

from http import HTTPStatus

import msgspec


class Refusal(Exception):  # noqa: N818 - an answer, not a fault
    """An error answer. `close`: the connection can't be used after it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        close: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = headers
        self.close = close

    def body(self) -> bytes:
        return msgspec.json.encode(
            {
                "error": {
                    "message": self.message,
                    "type": _kind(self.status),
                    "param": None,
                    "code": self.code,
                }
            }
        )

    def event(self) -> bytes:
        """For a stream that has begun: what the nodes say there, too."""
        return b"data: " + self.body() + b"\n\ndata: [DONE]\n\n"


def _kind(status: int) -> str:
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return "rate_limit_error"
    return "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"


def malformed(what: str) -> Refusal:
    """What follows on the connection can't be trusted to be where it seems to be."""
    return Refusal(400, what, code="malformed_request", close=True)


def too_large(what: str, limit_bytes: int) -> Refusal:
    return Refusal(413, f"{what} is larger than {limit_bytes} bytes", code="request_too_large", close=True)


def unavailable(message: str, retry_after_s: int = 1) -> Refusal:
    return Refusal(503, message, code="unavailable", headers=((b"retry-after", b"%d" % retry_after_s),))


def overloaded(retry_after_s: int) -> Refusal:
    return Refusal(
        429,
        "every node is too busy to keep the promise; try again later",
        code="overloaded",
        headers=((b"retry-after", b"%d" % retry_after_s),),
    )


def lost(message: str) -> Refusal:
    return Refusal(502, message, code="node_lost")


def late(message: str) -> Refusal:
    return Refusal(504, message, code="node_timeout")
