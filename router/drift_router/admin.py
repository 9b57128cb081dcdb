"""The admin port: is it alive, is it ready, metrics, and control.

Everything under /control needs the control token, as `Authorization: Bearer TOKEN` or `x-drift-token`. What is
shown comes from a `Router`, which may be one process or several.
"""

from __future__ import annotations

import asyncio
import hmac
import http
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from drift_engine import openapi
from drift_router import metrics, pictures, promises
from drift_router.admin_document import DOCUMENT, NodesAnswer, NodesTaken
from drift_router.discovery import pushed
from drift_router.discovery.pushed import OldEpoch, Update
from drift_router.documents import DocumentError
from drift_router.pictures import Picture, Recent
from drift_router.promises import Promised

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 4 * 1024 * 1024
"""Of a list of nodes: 1 KiB for each of the most that are taken."""

ANSWER_S = 5.0
"""For the workers to say how they do; then 503."""


class Router(Protocol):
    async def picture(self) -> Picture:
        """How it does now. Raises TimeoutError or OSError where a worker does not answer."""

    async def take_nodes(self, update: Update) -> None:
        """Raises OldEpoch, or DocumentError for nodes that can't be used; PermissionError where something else says
        which nodes there are; TimeoutError where a worker does not say that it has taken them.
        """

    async def take_promise(self, asked: Promised) -> None:
        """Raises OldEpoch; TimeoutError where a worker does not say that it has taken it."""


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    def __init__(self, status: int, message: str, code: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def create_app(
    router: Router, control_token: str, clock: Callable[[], float] = time.monotonic
) -> web.Application:
    """Without a token nobody gets in under /control."""
    recent = Recent()

    async def picture() -> Picture:
        try:
            async with asyncio.timeout(ANSWER_S):
                found = await router.picture()
        except (TimeoutError, OSError) as error:
            raise Refused(503, "a worker does not answer", "unavailable") from error
        recent.sample(found.counters, clock())
        return found

    async def sampling(_: web.Application) -> AsyncIterator[None]:
        async def sample() -> None:
            while True:
                try:
                    await picture()
                except Refused as error:
                    log.warning("%s", error)
                await asyncio.sleep(pictures.SAMPLE_S)

        task = asyncio.get_running_loop().create_task(sample())
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def describe(_: web.Request) -> web.Response:
        return _json(DOCUMENT)

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        found = await picture()
        if found.draining:
            raise Refused(503, "the router is draining", "unavailable")
        if not any(node.eligible for node in found.nodes):
            problem = found.nodes_problem and f"; {found.nodes_problem}"
            raise Refused(
                503, f"none of {len(found.nodes)} nodes may be sent requests{problem}", "unavailable"
            )
        return web.Response(text="ok\n")

    async def read_metrics(_: web.Request) -> web.Response:
        text = metrics.render(await picture())
        return web.Response(body=text, headers={"content-type": metrics.CONTENT_TYPE})

    async def read_nodes(_: web.Request) -> web.Response:
        return _json(NodesAnswer((await picture()).nodes))

    async def put_nodes(request: web.Request) -> web.Response:
        try:
            update = pushed.parse(await request.read())
            async with asyncio.timeout(ANSWER_S):
                await router.take_nodes(update)
        except TimeoutError as error:
            raise Refused(503, "a worker does not say that it has taken the nodes", "unavailable") from error
        except DocumentError as error:
            raise Refused(400, str(error), "invalid_nodes") from error
        except OldEpoch as error:
            raise Refused(409, str(error), "stale_epoch") from error
        except PermissionError as error:
            raise Refused(409, str(error), "nodes_are_not_pushed") from error
        return _json(NodesTaken(update.epoch, len(update.nodes)))

    async def read_promise(_: web.Request) -> web.Response:
        return _json((await picture()).promised)

    async def put_promise(request: web.Request) -> web.Response:
        try:
            asked = promises.parse(await request.read())
            async with asyncio.timeout(ANSWER_S):
                await router.take_promise(asked)
        except TimeoutError as error:
            raise Refused(
                503, "a worker does not say that it has taken the promise", "unavailable"
            ) from error
        except DocumentError as error:
            raise Refused(400, str(error), "invalid_promise") from error
        except OldEpoch as error:
            raise Refused(409, str(error), "stale_epoch") from error
        return _json(asked)

    async def read_report(_: web.Request) -> web.Response:
        found = await picture()
        return _json(recent.report(found, clock()))

    app = web.Application(
        client_max_size=MAX_BODY_BYTES, middlewares=[_in_our_shape, _authorizing(control_token)]
    )
    app.cleanup_ctx.append(sampling)
    app.add_routes(
        [
            web.get(openapi.PATH, describe),
            web.get("/healthz", healthz),
            web.get("/readyz", readyz),
            web.get("/metrics", read_metrics),
            web.get("/control/v1/nodes", read_nodes),
            web.put("/control/v1/nodes", put_nodes),
            web.get("/control/v1/promise", read_promise),
            web.put("/control/v1/promise", put_promise),
            web.get("/control/v1/report", read_report),
        ]
    )
    return app


def _authorizing(control_token: str) -> Middleware:
    expected = control_token.encode()

    @web.middleware
    async def authorize(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith("/control/"):
            scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
            given = bearer if scheme.lower() == "bearer" else request.headers.get("x-drift-token", "")
            # strangers' bytes may be no UTF-8
            right = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), expected)
            if not (expected and right):
                raise Refused(
                    401,
                    "the control token is missing or wrong; send it as 'Authorization: Bearer TOKEN'",
                    "invalid_control_token",
                )
        return await handler(request)

    return authorize


@web.middleware
async def _in_our_shape(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refused as error:
        return _error(error.status, str(error), error.code)
    except web.HTTPRequestEntityTooLarge:
        return _error(413, f"the body is larger than the maximum {MAX_BODY_BYTES} bytes", "too_large")
    except web.HTTPNotFound:
        return _error(404, f"no such route: {request.method} {request.path}", "not_found")
    except web.HTTPMethodNotAllowed:
        return _error(405, f"{request.path} does not take {request.method}", "method_not_allowed")
    except web.HTTPException as error:
        return _error(error.status, error.reason, None)
    except Exception:
        log.exception("%s %s", request.method, request.path)
        return _error(500, "internal error; the router's log has the details", "internal_error")


def _json(value: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


def _error(status: int, message: str, code: str | None) -> web.Response:
    server = status >= http.HTTPStatus.INTERNAL_SERVER_ERROR
    kind = "server_error" if server else "invalid_request_error"
    body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    answer = web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")
    if status == http.HTTPStatus.UNAUTHORIZED:
        answer.headers["www-authenticate"] = "Bearer"
    return answer
