"""The node's two doors, asked what their OpenAPI documents say that they take, and what they don't."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

import api_node
import http_calls
import schema_fuzzing
from drift_engine.api import app, control
from schema_fuzzing import Route

NOBODY: Any = cast("Any", None)
PUBLIC = app.routes(NOBODY).openapi()
CONTROL = control.routes(NOBODY).openapi()
CONTROL_HEADERS = {"x-drift-token": api_node.CONTROL_TOKEN}


@pytest.fixture(scope="module")
def node() -> Iterator[api_node.ApiNode]:
    with api_node.node() as running:
        yield running
        # after all of it, it serves
        body = {"model": api_node.MODEL, "prompt": "hi"}
        assert http_calls.post(running.url, "/v1/completions", body).status == 200
        assert running.call(lambda: running.context.admission.idle(10))


@pytest.mark.parametrize("route", schema_fuzzing.operations(PUBLIC), ids=" ".join)
def test_the_public_door_answers_as_it_says(node: api_node.ApiNode, route: Route) -> None:
    schema_fuzzing.try_out(PUBLIC, node.url, route, fields={"model": api_node.MODEL, "name": api_node.MODEL})


@pytest.mark.parametrize(
    "route",
    # a node that drains answers nothing else any more, and events have no end
    schema_fuzzing.operations(CONTROL, endless=["/control/v1/drain", "/kv/v1/events"]),
    ids=" ".join,
)
def test_the_control_door_answers_as_it_says(node: api_node.ApiNode, route: Route) -> None:
    schema_fuzzing.try_out(CONTROL, node.control_url, route, CONTROL_HEADERS)


@pytest.mark.parametrize("route", schema_fuzzing.operations(CONTROL), ids=" ".join)
def test_without_the_token_the_control_door_answers_nothing_else(
    node: api_node.ApiNode, route: Route
) -> None:
    method, path = route
    assert http_calls.call(node.control_url, method, path).status == 401
