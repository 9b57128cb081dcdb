"""Where lists of nodes come from: a file that is read again, and words with epochs."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from drift_router import reloading
from drift_router.discovery import pushed
from drift_router.discovery.pushed import OldEpoch, Pushed, Update
from drift_router.discovery.static_file import StaticFile
from drift_router.documents import DocumentError
from drift_router.nodes.addresses import Address
from waiting import until

A, B = Address("a", "http://a:1"), Address("b", "http://b:1")
ONE = "nodes: [{name: a, url: http://a:1}]"
TWO = "nodes: [{name: a, url: http://a:1}, {name: b, url: http://b:1}]"
DEADLINE_S = 20


def replace(file: Path, text: str) -> None:
    """As editors and mounted volumes do."""
    other = file.with_suffix(".new")
    other.write_text(text)
    other.rename(file)


def test_a_changed_file_is_read_again_and_a_broken_one_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloading, "INTERVAL_S", 0.01)
    file = tmp_path / "nodes.yaml"
    file.write_text(ONE)

    async def following() -> None:
        source = StaticFile(file)
        lists: asyncio.Queue[tuple[Address, ...]] = asyncio.Queue()
        await source.start(lists.put_nowait)
        assert await lists.get() == (A,)
        replace(file, TWO)
        assert await lists.get() == (A, B)
        replace(file, "nodes: [{name: a, url: http://a:1, weight: 7}]")
        await until(lambda: source.reloading.problem != "")
        assert source.reloading.problem.endswith("nodes[0]: weight: 7.0 is not between 0 and 1")
        file.unlink()
        await until(lambda: source.reloading.problems == 2)
        assert lists.empty()
        file.write_text(ONE)
        assert await lists.get() == (A,)
        assert source.reloading.problem == ""
        await source.close()

    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await following()

    asyncio.run(bounded())


def test_a_replaced_file_is_noticed_by_more_than_its_age(tmp_path: Path) -> None:
    file = tmp_path / "nodes.yaml"
    file.write_text(ONE)

    async def polls() -> None:
        source = StaticFile(file)
        await source.start(lambda nodes: None)
        age = file.stat()
        assert source.reloading.poll() is None
        replace(file, ONE.replace("a:1", "c:1"))
        os.utime(file, ns=(age.st_atime_ns, age.st_mtime_ns))
        assert source.reloading.poll() == (Address("a", "http://c:1"),)
        await source.close()

    asyncio.run(polls())


def test_a_router_does_not_start_with_a_broken_file(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="No such file"):
        asyncio.run(StaticFile(tmp_path / "none.yaml").start(lambda nodes: None))


def test_pushed_nodes_begin_with_the_command_line_and_follow_epochs() -> None:
    lists: list[tuple[Address, ...]] = []

    async def starting() -> Pushed:
        source = Pushed([A])
        await source.start(lists.append)
        return source

    source = asyncio.run(starting())
    source.take(Update(5, (A, B)))
    source.take(Update(5, (B,)))  # the same epoch again
    with pytest.raises(OldEpoch, match="epoch: 4 is older than 5"):
        source.take(Update(4, (A,)))
    with pytest.raises(DocumentError, match=r"nodes\[1\].name"):
        source.take(Update(9, (A, A)))
    source.take(Update(6, ()))  # the refused 9 was not taken
    assert lists == [(A,), (A, B), (B,), ()]
    assert source.epoch == 6


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"nodes: []", "not JSON"),
        (b"[]", "Expected object, got array"),
        (b'{"nodes": []}', "missing required field epoch"),
        (b'{"epoch": 0, "nodes": []}', "epoch: 0 is not between 1 and"),
        (b'{"epoch": 99999999999999999999, "nodes": []}', "epoch"),
        (b'{"epoch": 1, "nodes": [{"name": "a", "url": 7}]}', "nodes[0].url: 7: Expected str, got int"),
        (b'{"epoch": 1, "nodes": [], "x": 1}', "unknown field x"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_a_word_that_cannot_be_read_says_why(body: bytes, message: str) -> None:
    with pytest.raises(DocumentError) as caught:
        pushed.parse(body)
    assert message in str(caught.value)
