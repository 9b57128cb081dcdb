"""From a YAML file to DriftServices, or to every problem in it with its line.

`parse` judges one document that is already data; `read` and `load` add YAML: several documents, line numbers in
front of the problems (`FILE:LINE: PATH: ...`), duplicate keys refused. What is accepted
here is what the API server accepts.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from importlib import resources
from operator import itemgetter
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from drift_operator import crd, driftservice, problems
from drift_operator.driftservice import DriftService
from drift_operator.errors import ManifestError
from drift_operator.problems import Location, Problem

MAX_BYTES = 1024 * 1024
"""Largest file that is read: the API server takes no larger object either (etcd's limit is 1.5 MiB)."""

DEFAULT_NAME = "drift-tiny.yaml"
"""The document that a run without a file takes; it comes with the package."""


class _Loader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: the types of JSON only, so a date stays a string."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def find_problems(document: object) -> list[Problem]:
    """Everything that is wrong with one document; an empty list where it is sound."""
    if (kind := _kind_problems(document)) is not None:
        return kind
    try:
        DriftService.model_validate(document)
    except ValidationError as error:
        schema = crd.schema()
        found = problems.explain(error, schema)
        return found + _hidden_rules(document, found, schema)
    return []


def parse(document: object) -> DriftService:
    """Raises ManifestError with one line per problem."""
    found = find_problems(document)
    if found:
        raise ManifestError([str(problem) for problem in found])
    return DriftService.model_validate(document)


def read(text: str, source: str = "<text>") -> list[DriftService]:
    """Every DriftService of a YAML text; raises ManifestError with all problems of all documents."""
    services: list[DriftService] = []
    lines: list[str] = []
    try:
        for node in yaml.compose_all(text, Loader=_Loader):
            doubled = list(_duplicates(node, set()))
            document = _construct(node)
            found = [*doubled, *(find_problems(document) if document is not None else [])]
            placed = sorted(
                ((_line(node, problem.location), problem) for problem in found), key=itemgetter(0)
            )
            lines += [f"{source}:{line}: {problem}" for line, problem in placed]
            if document is not None and not found:
                services.append(DriftService.model_validate(document))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}:{mark.line + 1}" if mark else source
        lines.append(f"{where}: not YAML: {error.problem or error.context}")
    except yaml.YAMLError as error:
        lines.append(f"{source}: not YAML: {' '.join(str(error).split())}")
    except RecursionError:
        lines.append(f"{source}: nested too deeply, or an alias that contains itself")
    if not lines and not services:
        lines.append(f"{source}: no document in it")
    if lines:
        raise ManifestError(lines)
    return services


def load(file: Path) -> list[DriftService]:
    """Every DriftService of a file; raises ManifestError."""
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ManifestError([f"{file}: {error.strerror or error}"]) from error
    if len(raw) > MAX_BYTES:
        raise ManifestError([f"{file}: larger than the maximum {MAX_BYTES} bytes"])
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError([f"{file}: not UTF-8 at byte {error.start}"]) from error
    return read(text, str(file))


def default_text() -> str:
    return (resources.files("drift_operator") / DEFAULT_NAME).read_text(encoding="utf-8")


def default() -> DriftService:
    """The embedded model under the default promise."""
    (service,) = read(default_text(), DEFAULT_NAME)
    return service


def _kind_problems(document: object) -> list[Problem] | None:
    """Only what kind of object this is: the fields of another kind would all be 'unknown'."""
    if not isinstance(document, dict):
        return [Problem((), f"{problems.shown(document)} is not an object of kind {driftservice.KIND}")]
    wanted = {"apiVersion": driftservice.API_VERSION, "kind": driftservice.KIND}
    found = [
        Problem(
            (key,),
            f"{problems.shown(document[key])} is not {value}" if key in document else f"is required: {value}",
        )
        for key, value in wanted.items()
        if document.get(key) != value
    ]
    return found or None


def _hidden_rules(document: object, found: list[Problem], schema: dict[str, Any]) -> list[Problem]:
    """Broken rules of objects that pydantic did not come to because something inside them is wrong.

    Whatever is blamed already is taken out, so that its default stands in, and the rest is judged again. Each round
    finds rules of larger objects, so the number of rounds is the document's depth.
    """
    hidden: list[Problem] = []
    remaining = copy.deepcopy(document)
    blamed = found
    while blamed:
        for problem in sorted(blamed, key=_depth_first):
            _remove(remaining, problem.location)
        try:
            DriftService.model_validate(remaining)
        except ValidationError as error:
            again = problems.explain(error, schema)
            blamed = [problem for problem in again if problem.is_rule and problem not in (*found, *hidden)]
            hidden += blamed
        else:
            break
    return hidden


def _depth_first(problem: Problem) -> int:
    return -len(problem.location)


def _remove(value: Any, location: Location) -> None:
    for part in location[:-1]:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return
    # An entry of a list keeps its place: the others' indices are part of their paths.
    if isinstance(value, dict) and location:
        value.pop(location[-1], None)


def _construct(node: yaml.Node) -> Any:
    loader = _Loader("")
    try:
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _duplicates(node: yaml.Node, met: set[int], location: Location = ()) -> Iterator[Problem]:
    """Keys that appear twice: YAML's last one would win in silence."""
    if id(node) in met:  # an alias: aliases of aliases would multiply
        return
    met.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _duplicates(item, met, (*location, index))
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, item in node.value:
            here = (*location, str(key.value))
            if str(key.value) in seen:
                yield Problem(here, "appears twice")
            seen.add(str(key.value))
            yield from _duplicates(item, met, here)


def _line(node: yaml.Node, location: Location) -> int:
    """The line of the value at `location`, or of the nearest object around it that is in the text."""
    line = node.start_mark.line
    for part in location:
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line
        elif isinstance(node, yaml.MappingNode):
            entries = [(key, item) for key, item in node.value if key.value == part]
            if not entries:
                break
            key, node = entries[-1]
            line = key.start_mark.line
        else:
            break
    return int(line) + 1
