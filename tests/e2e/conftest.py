"""One real node for all end-to-end tests that don't break it: a start costs seconds.

Nothing here is of the whole session: tests of other folders have the environment that the run began with.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import http_calls
import real_node

MAX_RUNNING = 32
MAX_WAITING = 96


@pytest.fixture(scope="package", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What nodes keep for their next start does not come from, or go to, the user's own folder."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of random weights."""
    return real_node.write_model(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="package")
def shared_node(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[real_node.RealNode]:
    with real_node.started(
        tmp_path_factory.mktemp("node"),
        model,
        max_running=MAX_RUNNING,
        max_waiting=MAX_WAITING,
        kv_bytes=24 * 2**20,
    ) as node:
        # The process that tries clients' schemas comes with the first of them, and stays.
        schema = {"type": "json_schema", "json_schema": {"name": "any", "schema": {"type": "boolean"}}}
        body = {"messages": [{"role": "user", "content": "?"}], "response_format": schema, "max_tokens": 1}
        assert http_calls.post(node.url, "/v1/chat/completions", {"model": model.name, **body}).status == 200
        yield node
        node.signal()
        assert node.ended() == 0
        assert "Traceback" not in node.stderr()


@pytest.fixture
def node(shared_node: real_node.RealNode) -> Iterator[real_node.RealNode]:
    """The shared node; whatever the test did, it must leave nothing behind in it."""
    files = shared_node.files()
    yield shared_node
    shared_node.settles()
    real_node.until(lambda: shared_node.files() <= files, "the node to close its connections")
    assert len(shared_node.processes()) == 2
