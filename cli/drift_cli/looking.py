"""Asks a router's admin port, a node's control port, or an operator how things are."""

from __future__ import annotations

import http.client
import urllib.parse
from typing import Any, TypeVar

import msgspec

from drift_engine import wire
from drift_engine.errors import EngineError
from drift_router.nodes.statuses import NodeStatus
from drift_router.pictures import RouterReport

TIMEOUT_S = 6.0
"""One more than a router gives its workers to answer."""

MAX_BODY_BYTES = 16 * 1024 * 1024
"""The reports of the most nodes that a router takes, at 3 KiB each."""

NODES_PATH, REPORT_PATH = "/control/v1/nodes", "/control/v1/report"

T = TypeVar("T")


class LookError(EngineError):
    """Nothing to see; its text says why."""


class _Nodes(msgspec.Struct, frozen=True):
    nodes: list[NodeStatus]


class RouterSeen(msgspec.Struct, frozen=True):
    """A router and its nodes."""

    router: RouterReport
    nodes: list[NodeStatus]


class NodeSeen(msgspec.Struct, frozen=True):
    """A node without a router."""

    node: wire.Report


Seen = RouterSeen | NodeSeen


class OperatorTarget(msgspec.Struct, frozen=True):
    """One half of the promise, as an operator tells it beyond the status."""

    burn_rates: dict[str, float | None]
    """By window, as "1m"."""


class OperatorSeen(msgspec.Struct, frozen=True):
    """What an operator tells of a service beyond its status."""

    pressure: float | None
    """Demand over supply; 1 is all that the nodes can do within the promise. None: unknown."""
    age_s: float | None
    unknown: str | None
    """Why nobody should act on these figures; None: they are good."""
    slo: dict[str, OperatorTarget]


def look(url: str, token: str) -> Seen:
    """Raises LookError."""
    status, body = _get(url, NODES_PATH, token)
    if status == http.HTTPStatus.NOT_FOUND:  # a node knows of no others
        return NodeSeen(_read(url, REPORT_PATH, *_get(url, REPORT_PATH, token), wire.Report))
    nodes = _read(url, NODES_PATH, status, body, _Nodes).nodes
    return RouterSeen(_read(url, REPORT_PATH, *_get(url, REPORT_PATH, token), RouterReport), nodes)


class _Told(msgspec.Struct, frozen=True):
    """What the door has of a service, as far as it is the DriftService's."""

    status: dict[str, Any] | None = None


def ask_operator(url: str, namespace: str, name: str) -> OperatorSeen:
    """Raises LookError."""
    found = _service(url, namespace, name, OperatorSeen)
    if found is None:
        raise LookError(f"{url}: this operator knows no DriftService {namespace}/{name}")
    return found


def ask_status(url: str, namespace: str, name: str) -> dict[str, Any] | None:
    """The status, as in the DriftService; None: there was no look at it yet. Raises LookError."""
    found = _service(url, namespace, name, _Told)
    return None if found is None else found.status


def _service(url: str, namespace: str, name: str, kind: type[T]) -> T | None:
    """None where nothing is known of it."""
    path = f"/v1/services/{namespace}/{name}"
    status, body = _get(url, path, "", option="--operator-url")
    return None if status == http.HTTPStatus.NOT_FOUND else _read(url, path, status, body, kind)


def _read(url: str, path: str, status: int, body: bytes, kind: type[T]) -> T:
    if status == http.HTTPStatus.UNAUTHORIZED:
        raise LookError(f"{url}: the control token is missing or wrong")
    if status != http.HTTPStatus.OK:
        raise LookError(
            f"{url}: {path} answered {status}; is it an admin port of a router, a control port of a node, "
            "or an operator's?"
        )
    try:
        return msgspec.json.decode(body, type=kind)
    except wire.UNREADABLE as error:
        raise LookError(f"{url}: {path} can't be read: {error}") from error


def _get(url: str, path: str, token: str, option: str = "--url") -> tuple[int, bytes]:
    try:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise LookError(f"{option}: {url} is not of the form http://HOST:PORT")
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT_S)
    except ValueError as error:  # a port that is none
        raise LookError(f"{option}: {url} is not of the form http://HOST:PORT") from error
    try:
        connection.request("GET", path, headers={"x-drift-token": token})
        answer = connection.getresponse()
        body = answer.read(MAX_BODY_BYTES)
    except (
        OSError,
        http.client.HTTPException,
        ValueError,
    ) as error:  # ValueError: a token of other characters
        raise LookError(f"{url}: no answer: {getattr(error, 'strerror', None) or error}") from error
    finally:
        connection.close()
    return answer.status, body
