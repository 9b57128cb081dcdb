"""One model for all nodes that strangers meet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import environments  # noqa: F401 - notes where the user's cache is before it is moved
import real_node


@pytest.fixture(scope="package", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What nodes keep for their next start does not come from, or go to, the user's own folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="package")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of random weights."""
    return real_node.write_model(tmp_path_factory.mktemp("models") / "small")
