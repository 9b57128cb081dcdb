"""The operator's plain port: is it alive, is it ready, metrics, and what it knows of its services as JSON.

Everything here is read-only but for the console's chat (`console`), and none of it is secret. An unknown pressure is
a 503 and never a zero: KEDA takes any other answer than 200 as a failure, and then its HPA keeps the replicas that
there are.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from drift_engine import openapi
from drift_operator.doors import console, documents, metrics, services
from drift_operator.doors.chatting import MAX_QUESTION_BYTES
from drift_operator.doors.figures import Figures, ServiceFigures
from drift_operator.doors.metrics import Metrics
from drift_operator.doors.pulse import Pulse

log = logging.getLogger(__name__)

MAX_BODY_BYTES = MAX_QUESTION_BYTES
"""Nothing else here takes a body."""


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def create_app(
    figures: Figures,
    numbers: Metrics,
    pulse: Pulse,
    why_not_ready: Callable[[], str | None],
    clock: Callable[[], float] = time.monotonic,
    page: web.Application | None = None,
) -> web.Application:
    """`clock` is the one that figures are dated by; `why_not_ready` says None once the operator does its work.
    `page`: the console, if it is served.
    """

    def found(request: web.Request, status: int) -> ServiceFigures:
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        service = figures.lookup(namespace, name)
        if service is None:
            raise Refused(status, "unknown_service", f"no DriftService {namespace}/{name} is known here")
        return service

    described = documents.document(console=page is not None)

    async def describe(_: web.Request) -> web.Response:
        return _json(described)

    async def healthz(_: web.Request) -> web.Response:
        late = pulse.late()
        return _text("\n".join(map(str, late)) or "ok", 500 if late else 200)

    async def readyz(_: web.Request) -> web.Response:
        why = why_not_ready()
        return _text(why or "ok", 503 if why else 200)

    async def read_metrics(_: web.Request) -> web.Response:
        return web.Response(body=numbers.render(), headers={"content-type": metrics.CONTENT_TYPE})

    async def list_services(_: web.Request) -> web.Response:
        return _json(services.listed(figures.all(), clock()))

    async def read_service(request: web.Request) -> web.Response:
        return _json(services.full(found(request, 404), clock()))

    async def read_pressure(request: web.Request) -> web.Response:
        answer = services.pressure(found(request, 503), clock())
        if isinstance(answer, str):
            raise Refused(503, "unknown_pressure", answer)
        return _json(answer)

    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_in_our_shape])
    app.add_routes(
        [
            web.get(openapi.PATH, describe),
            web.get("/healthz", healthz),
            web.get("/readyz", readyz),
            web.get("/metrics", read_metrics),
            web.get("/v1/services", list_services),
            web.get("/v1/services/{namespace}/{name}", read_service),
            web.get("/v1/services/{namespace}/{name}/pressure", read_pressure),
        ]
    )
    if page is not None:
        console.mount(app, page)
    return app


@web.middleware
async def _in_our_shape(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refused as error:
        return _error(error.status, error.code, str(error))
    except web.HTTPNotFound:
        return _error(404, "not_found", f"no such route: {request.method} {request.path}")
    except web.HTTPMethodNotAllowed:
        return _error(405, "method_not_allowed", f"{request.path} does not take {request.method}")
    except web.HTTPException as error:
        return _error(error.status, "refused", error.reason)
    except Exception:
        log.exception("%s %s", request.method, request.path)
        return _error(500, "internal_error", "internal error; the operator's log has the details")


def _text(text: str, status: int) -> web.Response:
    return web.Response(text=text + "\n", status=status)


def _error(status: int, code: str, message: str) -> web.Response:
    return _json({"error": {"code": code, "message": message}}, status)


def _json(document: Mapping[str, object], status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(document), status=status, content_type="application/json")
