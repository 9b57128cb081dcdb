"""Requests made from a door's own OpenAPI document, right and wrong ones: the document names each answer."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import hypothesis
import schemathesis
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

EXAMPLES = int(os.environ.get("DRIFT_FUZZ_EXAMPLES", "20"))
"""Of right requests to each operation, and as many wrong ones. 2,000 find what they find in some minutes."""

DEADLINE_S = 20.0

FAULTS = frozenset({500})
"""Statuses that may be in a document, and still nobody may be able to make a door answer with."""

CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
MODES = tuple(schemathesis.GenerationMode)

Route = tuple[str, str]
"""Method and path."""


def operations(document: Mapping[str, Any], endless: Iterable[str] = ()) -> list[Route]:
    """All that the document names, but for paths whose answers do not end."""
    return [
        (method.upper(), path)
        for path, methods in document["paths"].items()
        for method in methods
        if path not in set(endless)
    ]


def try_out(
    document: Mapping[str, Any],
    url: str,
    route: Route,
    headers: Mapping[str, str] | None = None,
    fields: Mapping[str, Any] | None = None,
) -> None:
    """Raises what schemathesis found; the same requests in every run. `fields` are of those that the door knows, in
    bodies that have them: nobody guesses a name."""
    method, path = route
    operation = schemathesis.openapi.from_dict(dict(document))[path][method]
    for mode in MODES:

        @hypothesis.settings(
            max_examples=EXAMPLES,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: schemathesis.Case[Any]) -> None:
            if isinstance(case.body, dict):
                case.body |= {name: value for name, value in (fields or {}).items() if name in case.body}
            answer = case.call_and_validate(
                base_url=url, headers=dict(headers or {}), checks=CHECKS, timeout=DEADLINE_S
            )
            assert answer.status_code not in FAULTS, answer.text

        try:
            ask()
        except hypothesis.errors.Unsatisfiable:
            assert mode is schemathesis.GenerationMode.NEGATIVE, "nothing is right"  # nothing to be wrong in
