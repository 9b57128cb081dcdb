"""Reads single values of a checkpoint's JSON files with errors that name file, field and value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drift_engine.errors import ModelError


def read_json(path: Path) -> Mapping[str, Any]:
    """One JSON object. Raises ModelError where the file is missing, unreadable or not an object."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path.parent}: no {path.name}; is this a Hugging Face model folder?") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: can't be read as JSON: {error}") from error
    if not isinstance(document, dict):
        raise ModelError(f"{path}: expected a JSON object, found {type(document).__name__}")
    return document


class Fields:
    """One JSON object with its name. A key that holds null counts as absent."""

    def __init__(self, name: str, values: Mapping[str, Any]) -> None:
        self.name = name
        self.values = values

    def has(self, key: str) -> bool:
        return self.values.get(key) is not None

    def error(self, key: str, problem: str) -> ModelError:
        return ModelError(f"{self.name}: {key}: {problem}")

    def integer(self, key: str, default: int | None = None, *, minimum: int = 1) -> int:
        value = self.values.get(key)
        if value is None:
            value = self._default(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(key, f"{value!r} is not an integer")
        if value < minimum:
            raise self.error(key, f"{value} is below the minimum {minimum}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A number above 0."""
        value = self.values.get(key)
        if value is None:
            value = self._default(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(key, f"{value!r} is not a number")
        if not 0 < value < float("inf"):
            raise self.error(key, f"{value} is not above 0")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.error(key, f"{value!r} is not true or false")
        return value

    def text(self, key: str, default: str) -> str:
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.error(key, f"{value!r} is not a string")
        return value

    def section(self, key: str) -> Fields | None:
        """A nested object, or None where there is none."""
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.error(key, f"{value!r} is not an object")
        return Fields(f"{self.name}: {key}", value)

    def token_ids(self, key: str) -> tuple[int, ...]:
        """One token id or a list of them; empty where absent."""
        value = self.values.get(key)
        if value is None:
            return ()
        ids = value if isinstance(value, list) else [value]
        if not all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in ids):
            raise self.error(key, f"{value!r} is not a token id or a list of token ids")
        return tuple(ids)

    def _default(self, key: str, default: float | None) -> float:
        if default is None:
            raise self.error(key, "is missing")
        return default
