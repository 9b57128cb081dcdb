"""Tables of what a request's body may have: field, type with its limits, and what becomes of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import drift_engine.api
from documentation.structs import limits
from documentation.tables import code, table

VLLM = frozenset(
    {
        "min_tokens",
        "top_k",
        "min_p",
        "repetition_penalty",
        "stop_token_ids",
        "ignore_eos",
        "chat_template_kwargs",
    }
)
"""Fields that OpenAI's API does not have, and vLLM's has."""

_DEFAULT = "refused unless `{}`, as routers by others write it"

REFUSED = {
    "suffix": "refused unless it is empty: these models are not trained to fill in text",
    "best_of": "refused unless it equals `n`",
    "no_stop_trim": _DEFAULT.format("false"),
    "skip_special_tokens": _DEFAULT.format("true"),
    "return_hidden_states": _DEFAULT.format("false"),
    "continue_final_message": _DEFAULT.format("false"),
}


def fields(body: type[BaseModel], *, like: str = "OpenAI") -> str:
    """The table of a body's own fields: required ones first, ignored ones last. Those that say nothing of themselves
    are as in the API of `like`."""
    return table(("field", "type", "what becomes of it"), _rows(body, like))


def _rows(body: type[BaseModel], like: str) -> Iterator[tuple[str, ...]]:
    schema = body.model_json_schema()
    required = schema.get("required", ())

    def place(name: str) -> tuple[bool, bool]:
        return name not in used(), name not in required

    for name in sorted(schema["properties"], key=place):
        field = schema["properties"][name]
        words = kind(field, schema.get("$defs", {})) + (", required" if name in required else "")
        yield code(name), words, _fate(name, field, like)


def _fate(name: str, field: dict[str, Any], like: str) -> str:
    if name in REFUSED:
        return REFUSED[name]
    if name not in used():
        return "taken and ignored"
    text = field.get("description", f"as in {'vLLM' if name in VLLM else like}'s API")
    assert isinstance(text, str)
    return text


_PLURALS = {
    "object": "objects",
    "integer": "integers",
    "text": "texts",
    "list of integers": "lists of integers",
}


@cache
def used() -> frozenset[str]:
    """Fields of a `request` that any endpoint's source reads."""
    found = set()
    for module in Path(drift_engine.api.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            match node:
                case ast.Attribute(value=ast.Name(id="request"), attr=field):
                    found.add(field)
    return frozenset(found)


def kind(field: dict[str, Any], definitions: dict[str, Any]) -> str:
    """A JSON schema's type and limits, for people. null is the same as absent, so it is not told."""
    if "$ref" in field:
        return kind(definitions[field["$ref"].rsplit("/", 1)[1]], definitions)
    if "anyOf" in field:
        words: list[str] = [kind(one, definitions) for one in field["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(words))
    if "enum" in field or "const" in field:
        return ", ".join(code(value) for value in field.get("enum", [field.get("const")]))
    match field.get("type"):
        case "string":
            return "text"
        case "boolean":
            return "true or false"
        case "integer" | "number" as name:
            bounds = (field.get("minimum"), field.get("maximum"), field.get("exclusiveMinimum"))
            return f"{name}{limits(*bounds)}"
        case "array":
            most = f"at most {field['maxItems']:,} " if "maxItems" in field else ""
            item = kind(field.get("items", {}), definitions)
            return f"list of {most}{_PLURALS.get(item.split(',')[0], item)}"
    return "object"
