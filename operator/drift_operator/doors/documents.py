"""What the plain port says of itself, as OpenAPI: with the console's requests where it is served."""

from __future__ import annotations

from typing import Any

import msgspec

from drift_engine import openapi
from drift_engine.openapi import Operation
from drift_operator.doors import metrics
from drift_operator.doors.chatting import Question


class Error(msgspec.Struct):
    code: str
    message: str


class Failure(msgspec.Struct):
    """Every answer that is no success."""

    error: Error


class Services(msgspec.Struct):
    """`GET /v1/services`: of each what `drift status` shows in a line."""

    services: list[dict[str, Any]]


class Pressure(msgspec.Struct):
    """`GET /v1/services/{namespace}/{name}/pressure`."""

    pressure: float
    desired_replicas: int | None
    present_replicas: int | None
    age_s: float


class Snapshot(msgspec.Struct):
    """`GET /console/v1/snapshot`: what the page shows."""

    services: list[dict[str, Any]]


_SERVICE = "/v1/services/{namespace}/{name}"

PLAIN = (
    Operation("GET", "/healthz", {200: "text/plain", 500: "text/plain"}),
    Operation("GET", "/readyz", {200: "text/plain", 503: "text/plain"}),
    Operation("GET", "/metrics", {200: metrics.CONTENT_TYPE.partition(";")[0]}),
    Operation("GET", "/v1/services", {200: Services}),
    Operation("GET", _SERVICE, {200: dict[str, Any], 404: Failure}),
    Operation("GET", f"{_SERVICE}/pressure", {200: Pressure, 404: Failure, 503: Failure}),
)
CONSOLE = (
    Operation("GET", "/console/v1/snapshot", {200: Snapshot, 421: Failure}),
    Operation("GET", "/console/v1/stream", {200: openapi.EVENTS, 421: Failure, 503: Failure}),
    Operation(
        "POST",
        "/console/v1/chat",
        {200: openapi.EVENTS, **dict.fromkeys((400, 401, 403, 404, 413, 421, 429, 502), Failure)},
        body=Question,
        secured=True,
    ),
)


def document(*, console: bool) -> openapi.Json:
    return openapi.document("Drift operator", (*PLAIN, *(CONSOLE if console else ())))
