"""The first thing that every request to the public port meets, as plain ASGI so that streams pass untouched.

Gives the request its id, checks the API key, the node's state and the room for one more, limits the body
while it is read, and writes one log line at the end (never of content). Probes and metrics pass freely.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from drift_engine.api import callers, errors, request_traces
from drift_engine.api.admission import Ticket
from drift_engine.api.context import Context
from drift_engine.tracing.spans import OPERATIONS

log = logging.getLogger("drift_engine.requests")

BODY_TIMEOUT_S = 60.0
"""From the headers to the end of the body; the largest body in this time needs about 1 Mbit/s."""

_WITH_BODY = OPERATIONS.keys() | {"/tokenize", "/detokenize"}
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


class Gate:
    def __init__(self, app: ASGIApp, context: Context) -> None:
        self._app = app
        self._context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start_s = time.monotonic()
        headers = Headers(scope=scope)
        request_id = headers.get("x-request-id", "")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = secrets.token_hex(16)
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {
                    **message,
                    "headers": [*message["headers"], (b"x-request-id", request_id.encode())],
                }
            await send(message)

        try:
            await self._admit(scope, headers, receive, answer, start_s)
        except errors.ApiError as error:
            await error.response()(scope, receive, answer)
        finally:
            if (trace := scope.get("state", {}).get("trace")) is not None:
                trace.end(status, time.monotonic())
            # a load generator counts the tokens of thousands of texts: those lines are for debugging
            level = logging.INFO if scope["path"] in OPERATIONS else logging.DEBUG
            if log.isEnabledFor(level) and scope["path"] in _WITH_BODY:
                log.log(
                    level,
                    "request",
                    extra={
                        "request_id": request_id,
                        "path": scope["path"],
                        "status": status,
                        "duration_ms": round(1000 * (time.monotonic() - start_s), 1),
                        **scope.get("state", {}).get("summary", {}),
                    },
                )

    async def _admit(
        self, scope: Scope, headers: Headers, receive: Receive, send: Send, start_s: float
    ) -> None:
        path = scope["path"]
        if not (path.startswith("/v1/") or path in _WITH_BODY):
            await self._app(scope, receive, send)
            return
        trusted = _equal(headers.get("x-drift-token", ""), self._context.control_token)
        key_digest = self._authenticate(headers, trusted)
        if scope["method"] != "POST" or path not in _WITH_BODY:
            await self._app(scope, receive, send)
            return
        if (refusal := self._context.health.refusal()) is not None:
            self._context.metrics.rejected(str(self._context.health.phase))
            raise errors.unavailable(refusal)
        limit_bytes = self._context.options.max_body_bytes
        if int(headers.get("content-length", "0")) > limit_bytes:
            raise self._too_large(limit_bytes)
        try:
            ticket = self._context.admission.enter()
        except errors.ApiError:
            self._context.metrics.rejected("full")
            raise
        trace = None
        if (recorder := self._context.recorder) is not None and path in OPERATIONS:
            trace = request_traces.begin(recorder, path, self._context.name, scope["headers"], start_s)
        caller = callers.of(ticket, start_s, key_digest, headers, trusted=trusted, trace=trace)
        scope.setdefault("state", {}).update(caller=caller, trace=trace)
        try:
            await self._app(scope, self._limited(receive, ticket, start_s), send)
        finally:
            ticket.leave()

    def _authenticate(self, headers: Headers, trusted: bool) -> str:
        """The digest of the caller's key, empty where none is needed. Raises 401."""
        accepted = self._context.options.api_key_sha256
        if not accepted:
            return ""
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if key and scheme.lower() == "bearer":
            digest = hashlib.sha256(key.strip().encode()).hexdigest()
            if _any_equal(digest, accepted):
                return digest
        if trusted:
            return ""  # a router checks keys itself and names the tenant
        self._context.metrics.rejected("api_key")
        raise errors.ApiError(
            401,
            # OpenAI's first words: LiteLLM knows by them that it is no mistake of the request's.
            "Incorrect API key provided, or none; send it as 'Authorization: Bearer KEY'",
            code="invalid_api_key",
            headers={"www-authenticate": "Bearer"},
        )

    def _limited(self, receive: Receive, ticket: Ticket, start_s: float) -> Receive:
        """Reads a body of bounded size in bounded time, whatever its headers said; then passes disconnects on."""
        limit_bytes = self._context.options.max_body_bytes
        seen_bytes = 0
        complete = False

        async def limited() -> Message:
            nonlocal seen_bytes, complete
            if complete:
                return await receive()
            try:
                async with asyncio.timeout(max(start_s + BODY_TIMEOUT_S - time.monotonic(), 0)):
                    message = await receive()
            except TimeoutError:
                raise errors.ApiError(408, f"the body did not come within {BODY_TIMEOUT_S:g} s") from None
            body_bytes = len(message.get("body", b""))
            seen_bytes += body_bytes
            if seen_bytes > limit_bytes:
                raise self._too_large(limit_bytes)
            try:
                ticket.hold(body_bytes)
            except errors.ApiError:
                self._context.metrics.rejected("bodies")
                raise
            complete = not message.get("more_body", False)
            return message

        return limited

    def _too_large(self, limit_bytes: int) -> errors.ApiError:
        self._context.metrics.rejected("too_large")
        return errors.too_large(limit_bytes)


def _equal(given: str, expected: str) -> bool:
    return bool(expected) and hmac.compare_digest(given.encode(), expected.encode())


def _any_equal(digest: str, accepted: Iterable[str]) -> bool:
    # every key is compared, so that the time says nothing about which one came close
    return sum(hmac.compare_digest(digest, other.lower()) for other in accepted) > 0
