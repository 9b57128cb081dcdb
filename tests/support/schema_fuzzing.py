"""Requests made from a door's own OpenAPI document, right and wrong ones: the document names each answer."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import hypothesis
import schemathesis
from hypothesis.strategies import SearchStrategy
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

EXAMPLES = int(os.environ.get("DRIFT_FUZZ_EXAMPLES", "20"))
"""Of right requests to each operation, and as many wrong ones. 2,000 find what they find in some minutes."""

SEARCHED = 1000
"""Right requests tried until one is served: rules between fields refuse nine of ten, and which ones are made depends
on the modules that the process has loaded."""

DEADLINE_S = 20.0

FAULTS = frozenset({500})
"""Statuses that may be in a document, and still nobody may be able to make a door answer with."""

CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
CONFIG = schemathesis.config.SchemathesisConfig.from_dict({"generation": {"with-security-parameters": False}})
"""Tokens are the test's: with invented ones nothing gets beyond the 401."""

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
    """Raises what schemathesis found. `fields` are of those that the door knows, in
    bodies that have them, and in paths until one was served: nobody guesses a name. Some of the right requests must
    be served: a door that refuses everything would keep to its document."""
    method, path = route
    operation = schemathesis.openapi.from_dict(dict(document), config=CONFIG)[path][method]
    served = False

    def ask(case: schemathesis.Case[Any]) -> None:
        nonlocal served
        for part in (case.body, case.path_parameters if not served else None):
            if isinstance(part, dict):
                part |= {name: value for name, value in (fields or {}).items() if name in part}
        answer = case.call_and_validate(
            base_url=url, headers=dict(headers or {}), checks=CHECKS, timeout=DEADLINE_S
        )
        assert answer.status_code not in FAULTS, answer.text
        served = served or answer.status_code < 300

    right = operation.as_strategy(generation_mode=schemathesis.GenerationMode.POSITIVE)
    _with_many(right, ask)
    if not served:
        _with_many(right, lambda case: None if served else ask(case), SEARCHED)
    assert served, "no right request was served"
    with contextlib.suppress(hypothesis.errors.Unsatisfiable):  # there may be nothing to be wrong in
        _with_many(operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE), ask)


def _with_many(
    cases: SearchStrategy[Any],
    ask: Callable[[schemathesis.Case[Any]], None],
    examples: int = EXAMPLES,
) -> None:
    settings = hypothesis.settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    settings(hypothesis.given(cases)(ask))()
