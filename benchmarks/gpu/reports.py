"""What a step has found so far, on disk after every finding: a step that is killed leaves what it had."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(json.dumps(value, indent=1) + "\n")
    fresh.replace(path)


class Report:
    """`set` a value or `add` a row to a list; `left_s` tells what remains of the step's time."""

    def __init__(self, path: Path, limit_s: float) -> None:
        self._path = path
        self._deadline_s = time.monotonic() + limit_s
        self._content: dict[str, Any] = {"results": {}}

    def left_s(self) -> float:
        return self._deadline_s - time.monotonic()

    def set(self, name: str, value: Any) -> None:
        self._content["results"][name] = value
        write_json(self._path, self._content)

    def add(self, name: str, row: dict[str, Any]) -> None:
        self._content["results"].setdefault(name, []).append(row)
        write_json(self._path, self._content)

    def fail(self, error: str) -> None:
        self._content["error"] = error
        write_json(self._path, self._content)
