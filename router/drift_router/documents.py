"""Files that people write for the router: from YAML or JSON to typed data, or to one line that says what is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from drift_engine import wire

MAX_BYTES = 4 * 1024 * 1024
"""Largest document that is read: the most nodes that are taken, with 1 KiB each."""

_SHOWN_CHARACTERS = 60

_PLACE = re.compile(r"^(?P<what>.*?)(?: - at `(?P<path>.*)`)?$", re.S)
_STEP = re.compile(r"\[(\d+)\]|\.?([^.\[\]]+)")

T = TypeVar("T")
U = TypeVar("U")


class DocumentError(ValueError):
    """What a person has to mend, in one line."""


def load(file: Path, kind: type[T], made: Callable[[T], U]) -> U:
    """What `made` makes of a file. Raises DocumentError, also made's, with the file's name in front."""
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise DocumentError(f"{file}: {error.strerror or error}") from error
    if len(raw) > MAX_BYTES:
        raise DocumentError(f"{file}: larger than the maximum {MAX_BYTES} bytes")
    try:
        return made(read(raw, kind))
    except DocumentError as error:
        raise DocumentError(f"{file}: {error}") from error


def read(raw: bytes, kind: type[T]) -> T:
    """YAML, of which JSON is a part. Raises DocumentError."""
    try:
        document = msgspec.json.decode(raw)  # a hundred times quicker than YAML
    except wire.UNREADABLE:
        document = _from_yaml(raw)
    return convert(document, kind)


def read_json(raw: bytes, kind: type[T]) -> T:
    """Raises DocumentError."""
    try:
        document = msgspec.json.decode(raw)
    except wire.UNREADABLE as error:
        raise DocumentError(f"not JSON: {error}") from error
    return convert(document, kind)


def _from_yaml(raw: bytes) -> object:
    try:
        return yaml.safe_load(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DocumentError(f"not UTF-8 at byte {error.start}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise DocumentError(f"{where}not YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise DocumentError(f"not YAML: {' '.join(str(error).split())}") from error
    except (RecursionError, ValueError) as error:  # ValueError: a date that is none
        raise DocumentError(f"not YAML: {error}") from error


def convert(document: object, kind: type[T]) -> T:
    """Raises DocumentError that names field, value and limit."""
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise DocumentError(explain(error, document)) from error


def explain(error: msgspec.ValidationError, document: object) -> str:
    """`nodes[2].weight: 7: Expected `float` <= 1.0`, with the value that the document has there."""
    found = _PLACE.match(str(error))
    assert found is not None  # any text matches
    path = (found["path"] or "").removeprefix("$").removeprefix(".")
    what = found["what"].replace("`", "")
    value = _at(document, path)
    if (
        "field" in what or ": " in what or isinstance(value, list | dict)
    ):  # it names the field or the value itself
        return f"{path}: {what}" if path else what
    return f"{path or 'document'}: {shown(value)}: {what}"


def shown(value: object) -> str:
    """A value for a message, cut short: enough to recognise a mistake."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."


def _at(document: Any, path: str) -> Any:
    for index, key in _STEP.findall(path):
        try:
            document = document[int(index) if index else key]
        except (LookupError, TypeError):
            return None
    return document
