"""Tables of options that are msgspec structs: name, type with its limits, default, meaning."""

from __future__ import annotations

import enum
from typing import Any

import msgspec
from msgspec import inspect

from documentation import meanings
from documentation.tables import code, table

WIDE = 1e15
"""A range that nobody reads in digits."""

HEADINGS = ("option", "type", "default", "meaning")


def options(kind: type[msgspec.Struct]) -> str:
    """The table of a struct; options of a struct within it are named by their path."""
    return table(HEADINGS, _rows(kind, ""))


def _rows(kind: type, path: str) -> list[tuple[str, ...]]:
    told = meanings.of(kind)
    described = inspect.type_info(kind)
    assert isinstance(described, inspect.StructType), kind
    rows: list[tuple[str, ...]] = []
    for field in described.fields:
        name = f"{path}{field.name}"
        if isinstance(field.type, inspect.StructType):
            rows += _rows(field.type.cls, f"{name}.")
        else:
            default = "required" if field.required else _default(field.default)
            rows.append((code(name), spell(field.type), default, told.get(field.name, "")))
    return rows


def _default(value: Any) -> str:
    return "" if value is None else code(_spelled(value))


def _spelled(value: Any) -> str:
    if isinstance(value, enum.Enum):
        return str(value.value)
    if isinstance(value, str):
        return value or '""'
    return msgspec.json.encode(value).decode()


def spell(kind: inspect.Type) -> str:
    """A type and its limits, for people."""
    match kind:
        case inspect.UnionType():
            return " or ".join(spell(part) for part in kind.types if not isinstance(part, inspect.NoneType))
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType() | inspect.FloatType():
            name = "integer" if isinstance(kind, inspect.IntType) else "number"
            return f"{name}{limits(kind.ge, kind.le, above=kind.gt)}"
        case inspect.StrType():
            return f"text{limits(kind.min_length, kind.max_length)}{' characters' if kind.max_length else ''}"
        case inspect.VarTupleType():
            return f"list of {spell(kind.item_type)}"
        case inspect.LiteralType():
            return ", ".join(code(value) for value in kind.values)
        case inspect.EnumType():
            return ", ".join(code(value) for value in kind.cls)
    raise TypeError(f"{kind}: no words for this type")


def limits(least: float | None, most: float | None, above: float | None = None) -> str:
    """`, 1 to 64`, or as much of it as there is."""
    if least is not None and most is not None:
        if most - least > WIDE:
            return ", 64 bits"
        return f", {least:,} to {most:,}"
    if above is not None:
        return f", above {above:,}" + (f", at most {most:,}" if most is not None else "")
    if least is not None:
        return f", at least {least:,}"
    return f", at most {most:,}" if most is not None else ""
