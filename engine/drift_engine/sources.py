"""Where a model's folder is: a path, a URI of the machine, or the hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import drift_tiny

from drift_engine.errors import ModelError

Progress = Callable[[int, int], None]


def resolve(uri: str, revision: str | None = None, progress: Progress | None = None) -> Path:
    """The local folder of a model."""
    if uri == "embedded://drift-tiny":
        return drift_tiny.checkpoint_path()
    path = Path(uri.removeprefix("file://"))
    if not path.is_dir():
        raise ModelError(f"model: {uri} is not a folder")
    return path
