"""The aggregated API over HTTP: who asks, may they, and the answer. TLS is around it (`tls`), registration beside it
(`registering`).
"""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from drift_operator.doors import external_metrics, label_selectors
from drift_operator.doors.external_metrics import Access, Refused
from drift_operator.doors.figures import Figures
from drift_operator.doors.front_proxy import User
from drift_operator.doors.label_selectors import SelectorError

log = logging.getLogger(__name__)

HEALTH = ("/healthz", "/livez", "/readyz")
"""Open to everybody, as of every API server."""

MAX_BODY_BYTES = 64 * 1024
"""Nothing here takes a body."""


class Gate(Protocol):
    async def user(self, request: web.Request) -> User:
        """Raises Refused with 401 or 503."""

    async def authorize(self, user: User, access: Access) -> None:
        """Raises Refused with 403 or 503."""

    def keeps(self, request: web.Request) -> bool:
        """False: the connection must end with this answer."""


def create_app(
    figures: Figures,
    gate: Gate,
    clock: Callable[[], float] = time.monotonic,
    now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
) -> web.Application:
    """`clock` is the one that figures are dated by."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def metric(request: web.Request) -> web.Response:
        if request.query.get("watch", "false") not in ("false", "0"):
            raise Refused(405, "external metrics can't be watched")
        try:
            selector = label_selectors.parse(request.query.get("labelSelector", ""))
        except SelectorError as error:
            raise Refused(400, str(error)) from error
        return _json(
            external_metrics.values(
                figures,
                request.match_info["namespace"],
                request.match_info["metric"],
                selector,
                now_s=clock(),
                now=now(),
            )
        )

    @web.middleware
    async def guarding(request: web.Request, handler: Handler) -> web.StreamResponse:
        answer = await _answer(request, handler)
        if not gate.keeps(request):
            answer.force_close()
        return answer

    async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if request.path not in HEALTH:
                await gate.authorize(await gate.user(request), Access.of(request.method, request.path))
            return await handler(request)
        except Refused as error:
            return _refusal(error)
        except web.HTTPNotFound:
            return _refusal(Refused(404, f"there is nothing at {request.path}"))
        except web.HTTPMethodNotAllowed:
            return _refusal(Refused(405, f"{request.path} does not take {request.method}"))
        except web.HTTPException as error:
            return _refusal(Refused(error.status, error.reason))
        except Exception:
            log.exception("%s %s", request.method, request.path)
            return _refusal(Refused(500, "internal error; the operator's log has the details"))

    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[guarding])
    app.add_routes([web.get(path, healthz) for path in HEALTH])
    app.add_routes(
        [web.get(path, _telling(document)) for path, document in external_metrics.discovery().items()]
    )
    app.add_routes([web.get(f"{external_metrics.ROOT}/namespaces/{{namespace}}/{{metric}}", metric)])
    return app


def _telling(document: Mapping[str, object]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def tell(_: web.Request) -> web.Response:
        return _json(document)

    return tell


def _refusal(refused: Refused) -> web.Response:
    answer = _json(refused.status(), refused.code)
    if refused.code == 401:
        answer.headers["www-authenticate"] = "Bearer"
    return answer


def _json(document: Mapping[str, object], status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(document), status=status, content_type="application/json")
