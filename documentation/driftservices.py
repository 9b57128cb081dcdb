"""docs/reference/driftservice.md: every field of the resource, from the schema that the API server judges by."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from documentation.structs import limits
from documentation.tables import code, page, table
from drift_operator import crd, driftservice, fields

INTRODUCTION = f"""\
`apiVersion: {driftservice.API_VERSION}`, `kind: {driftservice.KIND}`. `metadata.name` has at most
{driftservice.NAME_CHARACTERS} characters: lower-case letters, digits and `-`, beginning with a letter.
Unknown fields are errors; `null` is the same as a field that is left out. `drift validate -f FILE` tells
everything that is wrong with a document, with its line; `kubectl explain driftservice.spec` has the same
texts as this page.

What this version can't serve is refused with the field's path: by `drift up`, and by the operator with the
condition Ready and its reason InvalidSpec.
"""

STATUS = """\
## Status

Written by the operator, and by nobody else. Conditions and their reasons are explained in
[operations](../operations.md#conditions), decisions [there, too](../operations.md#decisions).
"""

COLUMNS = """\
## What `kubectl get` shows

`kubectl get drs`; those marked *wide* with `-o wide`.
"""


def render() -> str:
    schema = crd.schema()["properties"]
    return page(
        "DriftService: every field",
        "`drift_operator.driftservice`",
        INTRODUCTION,
        "## Spec\n",
        table(("field", "type", "default", "meaning"), _rows(schema["spec"], "")),
        "### Rules over several fields\n",
        table(("of", "rule"), [(code(path), text) for path, text in _rules(schema["spec"], "spec")]),
        STATUS,
        table(("field", "type", "meaning"), _without_defaults(schema["status"])),
        COLUMNS,
        table(("column", "shows"), [_column(column) for column in crd.COLUMNS]),
    )


def _column(column: dict[str, Any]) -> tuple[str, str]:
    wide = " *(wide)*" if column.get("priority") else ""
    return code(column["name"]) + wide, column["description"]


def _without_defaults(status: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for field, kind, _, meaning in _rows(status, ""):
        yield field, kind, meaning


def _rows(schema: dict[str, Any], path: str) -> Iterator[tuple[str, ...]]:
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        own = f"{path}{name}"
        meaning = field.get("description", "")
        default = "required" if name in required else _default(field)
        yield code(own), kind(field), default, meaning
        yield from _rows(field, f"{own}.")
        yield from _rows(field.get("items", {}), f"{own}[].")


def _default(field: dict[str, Any]) -> str:
    default = field.get("default")
    return "" if default is None or default == {} else code(_plain(default))


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def kind(field: dict[str, Any]) -> str:
    """A field's type and its limits, for people."""
    phrase = fields.PHRASES.get(field.get("pattern", ""))
    if "enum" in field:
        return ", ".join(code(value) for value in field["enum"])
    if field.get("x-kubernetes-int-or-string"):
        return phrase or "integer or text"
    match field.get("type"):
        case "object" if "additionalProperties" in field:
            return f"map of texts to {kind(field['additionalProperties'])}" + _count(
                field, "Properties", "entries"
            )
        case "object" if field.get("x-kubernetes-preserve-unknown-fields"):
            return "object, of any fields"
        case "array":
            return f"list of {_plural(kind(field['items']))}" + _count(field, "Items", "items")
        case "boolean":
            return "true or false"
        case "integer" | "number" as name:
            return f"{name}{limits(field.get('minimum'), field.get('maximum'))}"
        case "string":
            rules = [rule["message"] for rule in field.get("x-kubernetes-validations", ())]
            size = "" if phrase else limits(field.get("minLength"), field.get("maxLength"))
            text = phrase or ("text" + size + (" characters" if size else ""))
            return ", ".join([text, *(rule.removeprefix("must be ") for rule in rules)])
    return "object"


def _plural(name: str) -> str:
    return "objects" if name == "object" else name


def _count(field: dict[str, Any], what: str, word: str) -> str:
    most = field.get(f"max{what}")
    return "" if most is None else f", at most {most} {word}"


def _rules(schema: dict[str, Any], path: str) -> Iterator[tuple[str, str]]:
    if schema.get("type") == "object":
        for rule in schema.get("x-kubernetes-validations", ()):
            yield path, rule["message"]
    for name, field in schema.get("properties", {}).items():
        yield from _rules(field, f"{path}.{name}")
        yield from _rules(field.get("items", {}), f"{path}.{name}[]")
