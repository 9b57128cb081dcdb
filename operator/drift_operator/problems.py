"""What is wrong with a document, in one line per problem: path, value and limit.

pydantic's errors come in, lines such as `spec.slo.tbt.targetMs: 0 is below the minimum 1` go out (see `manifests`).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from drift_operator.fields import BROKEN_RULE, NOT_A_FORM, PHRASES

Location = tuple[str | int, ...]

SHOWN_CHARACTERS = 60
"""A value longer than this is cut in messages: a line has to stay a line."""

_KINDS = {
    "string_type": "a string",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "int_parsing_size": "an integer of 64 bits",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}


@dataclass(frozen=True)
class Problem:
    location: Location
    phrase: str
    is_rule: bool = False

    def __str__(self) -> str:
        return f"{path(self.location)}: {self.phrase}" if self.location else self.phrase


def path(location: Location) -> str:
    """("spec", "env", 0, "name") -> `spec.env[0].name`."""
    made = ""
    for part in location:
        if isinstance(part, int):
            made += f"[{part}]"
        else:
            made += f".{part}" if made else part
    return made


def shown(value: object) -> str:
    """A value as YAML's flow style would have it, cut to a line; what is in a list or an object is left out."""
    if isinstance(value, list | dict) and value:
        return "[...]" if isinstance(value, list) else "{...}"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant."""
    by_lower = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def explain(error: ValidationError, schema: Mapping[str, Any]) -> list[Problem]:
    """Every error of a document whose structural schema is `schema`, in the order of the types."""
    problems: list[Problem] = []
    for item in error.errors(include_url=False):
        location: Location = item["loc"]
        if item["type"] == BROKEN_RULE:
            for field, phrase in item["ctx"]["pairs"]:
                problems.append(Problem((*location, *([field] if field else [])), phrase, is_rule=True))
        else:
            problems.append(Problem(location, _phrase(item, schema)))
    return problems


def _phrase(item: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    kind: str = item["type"]
    value, limits = item["input"], item.get("ctx", {})
    match kind:
        case "missing":
            return "is required"
        case "extra_forbidden":
            return _unknown_field(item["loc"], schema)
        case "greater_than_equal":
            return f"{shown(value)} is below the minimum {limits['ge']}"
        case "less_than_equal":
            return f"{shown(value)} is above the maximum {limits['le']}"
        case "string_too_long":
            return f"has {len(value)} characters, more than the maximum {limits['max_length']}"
        case "string_too_short":
            return f"{shown(value)} has fewer characters than the minimum {limits['min_length']}"
        case "too_long":
            return f"has {limits['actual_length']} entries, more than the maximum {limits['max_length']}"
        case "string_pattern_mismatch":
            pattern = limits["pattern"]
            return f"{shown(value)} is not {PHRASES.get(pattern, 'of the form ' + pattern)}"
        case "literal_error":
            return _not_one_of(value, item["loc"], schema)
        case _ if kind == NOT_A_FORM:
            return f"{shown(value)} is not {limits['phrase']}"
        case _ if kind in _KINDS:
            return f"{shown(value)} is not {_KINDS[kind]}"
        case _:
            return f"{shown(value)}: {item['msg']}"


def _at(location: Sequence[str | int], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of the value at `location`; empty where the schema does not reach."""
    for part in location:
        if isinstance(part, int):
            schema = schema.get("items", {})
        else:
            schema = schema.get("properties", {}).get(part) or schema.get("additionalProperties", {})
    return schema


def _unknown_field(location: Location, schema: Mapping[str, Any]) -> str:
    known = list(_at(location[:-1], schema).get("properties", ()))
    meant = nearest(str(location[-1]), known)
    hint = f"did you mean {meant}?" if meant else f"known here: {', '.join(known)}"
    return f"unknown field; {hint}"


def _not_one_of(value: object, location: Location, schema: Mapping[str, Any]) -> str:
    known = [str(choice) for choice in _at(location, schema).get("enum", ())]
    meant = nearest(value, known) if isinstance(value, str) else None
    hint = f"; did you mean {meant}?" if meant else ""
    return f"{shown(value)} is not one of {', '.join(known)}{hint}"
