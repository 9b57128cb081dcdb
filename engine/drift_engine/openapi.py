"""What a door takes and answers, for machines: OpenAPI documents and their schemas, from typed data.

Doors that are no FastAPI applications list their requests as `Operation`s, from which `document` makes all of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec

from drift_engine.version import drift_version

Json = dict[str, Any]

PATH = "/openapi.json"

EVENTS = "text/event-stream"

_REFERENCES = "#/components/schemas/{name}"
_TOKEN = "token"  # noqa: S105 - a name in the document
_PARAMETER = re.compile(r"\{(\w+)\}")


class Error(msgspec.Struct):
    message: str
    type: str
    param: str | None
    code: str | None


class Failure(msgspec.Struct):
    """Every answer of a node or a router that is no success, as in OpenAI's API."""

    error: Error


class Operation(NamedTuple):
    """One request. What it answers, by status, is either the type of a JSON document or a media type."""

    method: str
    path: str
    answers: Mapping[int, Any]
    body: Any = None
    """The type of the JSON document that it takes; None: it takes none."""
    secured: bool = False
    """It needs a token, as `Authorization: Bearer TOKEN`."""


def document(title: str, operations: Iterable[Operation]) -> Json:
    paths: dict[str, Json] = {}
    kinds: list[Any] = []
    for operation in operations:
        kinds += [kind for kind in (*operation.answers.values(), operation.body) if _is_kind(kind)]
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    scheme = {"type": "http", "scheme": "bearer"}
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": drift_version()},
        "paths": paths,
        "components": {"schemas": components(kinds), "securitySchemes": {_TOKEN: scheme}},
    }


def components(kinds: Iterable[Any]) -> Json:
    """The schemas by name, of these types and of all that they are made of."""
    _, found = msgspec.json.schema_components(kinds, ref_template=_REFERENCES)
    return found


def answer(status: int, kind: Any) -> Json:
    """One entry of `responses`."""
    return {"description": HTTPStatus(status).phrase, "content": _content(kind)}


def _operation(operation: Operation) -> Json:
    made: Json = {
        "responses": {str(status): answer(status, kind) for status, kind in operation.answers.items()}
    }
    if names := _PARAMETER.findall(operation.path):
        schema = {"type": "string", "minLength": 1}
        made["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": schema} for name in names
        ]
    if operation.body is not None:
        made["requestBody"] = {"required": True, "content": _content(operation.body)}
    if operation.secured:
        made["security"] = [{_TOKEN: []}]
    return made


def _is_kind(value: Any) -> bool:
    return value is not None and not isinstance(value, str)


def _content(kind: Any) -> Json:
    if isinstance(kind, str):
        # to readers of such documents a stream is its events, not a text
        return {kind: {"schema": {} if kind == EVENTS else {"type": "string"}}}
    (schema,), _ = msgspec.json.schema_components((kind,), ref_template=_REFERENCES)
    return {"application/json": {"schema": schema}}
