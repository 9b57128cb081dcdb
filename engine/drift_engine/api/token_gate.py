"""The first thing that every request to the control port meets, before a byte of its body is read: does it have the
control token? Then what it sends is bounded in size and time.
"""

from __future__ import annotations

import asyncio
import hmac
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from drift_engine.api import errors

MAX_BODY_BYTES = 16 * 1024
"""A set-point has 200."""

BODY_S = 10.0


class TokenGate:
    def __init__(self, app: ASGIApp, control_token: str) -> None:
        self._app = app
        self._expected = control_token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                self._authorize(Headers(scope=scope))
                receive = _limited(receive)
            except errors.ApiError as error:
                await error.response()(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _authorize(self, headers: Headers) -> None:
        """Raises 401."""
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = bearer if scheme.lower() == "bearer" else headers.get("x-drift-token", "")
        if not hmac.compare_digest(given.strip().encode(), self._expected):
            raise errors.ApiError(
                401,
                "the control token is missing or wrong; send it as 'Authorization: Bearer TOKEN'",
                code="invalid_control_token",
                headers={"www-authenticate": "Bearer"},
            )


def _limited(receive: Receive) -> Receive:
    """Raises 413 and 408 where the body is read; then passes disconnects on."""
    until_s = time.monotonic() + BODY_S
    seen_bytes, complete = 0, False

    async def limited() -> Message:
        nonlocal seen_bytes, complete
        if complete:
            return await receive()
        try:
            async with asyncio.timeout(max(until_s - time.monotonic(), 0)):
                message = await receive()
        except TimeoutError:
            raise errors.ApiError(408, f"the body did not come within {BODY_S:g} s") from None
        seen_bytes += len(message.get("body", b""))
        if seen_bytes > MAX_BODY_BYTES:
            raise errors.too_large(MAX_BODY_BYTES)
        complete = not message.get("more_body", False)
        return message

    return limited
