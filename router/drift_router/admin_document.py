"""The admin port's own description, as OpenAPI."""

from __future__ import annotations

import msgspec

from drift_engine import openapi
from drift_engine.openapi import Failure, Operation
from drift_router import metrics
from drift_router.discovery.pushed import Update
from drift_router.nodes.statuses import NodeStatus
from drift_router.pictures import RouterReport
from drift_router.promises import Promised


class NodesAnswer(msgspec.Struct, frozen=True):
    """`GET /control/v1/nodes`."""

    nodes: list[NodeStatus]


class NodesTaken(msgspec.Struct, frozen=True):
    """`PUT /control/v1/nodes`."""

    epoch: int
    nodes: int


_LATE = {503: Failure}
_READ = {401: Failure, **_LATE}
_TOLD = {400: Failure, 409: Failure, 413: Failure, **_READ}

DOCUMENT = openapi.document(
    "Drift router, admin port",
    [
        Operation("GET", "/healthz", {200: "text/plain"}),
        Operation("GET", "/readyz", {200: "text/plain", **_LATE}),
        Operation("GET", "/metrics", {200: metrics.CONTENT_TYPE.partition(";")[0], **_LATE}),
        Operation("GET", "/control/v1/nodes", {200: NodesAnswer, **_READ}, secured=True),
        Operation("PUT", "/control/v1/nodes", {200: NodesTaken, **_TOLD}, body=Update, secured=True),
        Operation("GET", "/control/v1/promise", {200: Promised, **_READ}, secured=True),
        Operation("PUT", "/control/v1/promise", {200: Promised, **_TOLD}, body=Promised, secured=True),
        Operation("GET", "/control/v1/report", {200: RouterReport, **_READ}, secured=True),
    ],
)
