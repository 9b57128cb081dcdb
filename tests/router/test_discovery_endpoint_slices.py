"""Following a Service's EndpointSlices, whatever becomes of the API server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from drift_router.discovery.api_server import Access
from drift_router.discovery.endpoint_slices import EndpointSlices, Pace
from drift_router.documents import DocumentError
from drift_router.nodes.addresses import Address
from scripted_api_server import (
    GONE,
    Behaviour,
    ScriptedApiServer,
    endpoint,
    hangs,
    is_silent,
    says,
    serving,
    slice_of,
)
from waiting import until

QUICK = Pace(first_s=20.0, answer_s=5.0, retry_s=0.01, retry_most_s=0.05)
DEADLINE_S = 30

A = slice_of("one", endpoint("a", "10.0.0.1"))
AB = slice_of("one", endpoint("a", "10.0.0.1"), endpoint("b", "10.0.0.2"))
C = slice_of("two", endpoint("c", "10.0.0.3"))


class Followed:
    """A router's list of nodes, as far as it was told."""

    def __init__(self, server: ScriptedApiServer, folder: Path, pace: Pace) -> None:
        self.token = folder / "token"
        self.token.write_text("token\n")
        self.source = EndpointSlices("prod/chat-nodes", Access(server.url, self.token, None), pace)
        self.told: list[tuple[Address, ...]] = []

    @property
    def names(self) -> str:
        return "".join(address.name for address in self.told[-1])

    async def until(self, names: str) -> None:
        await until(lambda: self.names == names)


Test = Callable[[ScriptedApiServer, Followed], Awaitable[None]]


def follow(folder: Path, test: Test, pace: Pace = QUICK, server: ScriptedApiServer | None = None) -> None:
    async def following() -> None:
        async with asyncio.timeout(DEADLINE_S), serving(server or ScriptedApiServer()) as api:
            api.put(A)
            followed = Followed(api, folder, pace)
            await followed.source.start(followed.told.append)
            if api.listing is None:
                await until(lambda: api.watched == 1)
            try:
                await test(api, followed)
            finally:
                await followed.source.close()

    asyncio.run(following())


def test_the_list_is_there_at_the_start_and_follows_changes(tmp_path: Path) -> None:
    async def test(api: ScriptedApiServer, followed: Followed) -> None:
        assert followed.names == "a"
        api.put(C)
        await followed.until("ac")
        api.put(AB)
        await followed.until("abc")
        api.delete("one")
        await followed.until("c")
        assert (api.lists, followed.source.problem, followed.source.problems) == (1, "", 0)

    follow(tmp_path, test)


def test_what_changes_no_node_is_not_told(tmp_path: Path) -> None:
    async def test(api: ScriptedApiServer, followed: Followed) -> None:
        api.put({**A, "metadata": {**A["metadata"], "generation": 2}})
        api.put(C)
        await followed.until("ac")
        assert len(followed.told) == 2

    follow(tmp_path, test)


def test_what_happened_while_a_watch_was_broken_is_known_afterwards(tmp_path: Path) -> None:
    async def test(api: ScriptedApiServer, followed: Followed) -> None:
        api.deaf = True
        api.delete("one")
        api.put(C)
        api.break_watches()
        await followed.until("c")

    follow(tmp_path, test)


@pytest.mark.parametrize("expired", [says(GONE), says(b"{}", status=410)])
def test_a_version_that_is_too_old_is_listed_anew_and_no_problem(tmp_path: Path, expired: Behaviour) -> None:
    async def test(api: ScriptedApiServer, followed: Followed) -> None:
        api.watching = expired
        api.break_watches()
        watches = len(api.watches)
        await until(lambda: len(api.watches) > watches + 2)
        assert followed.source.problems == 1  # the broken watch
        api.watching = None
        api.put(C)
        await followed.until("ac")

    follow(tmp_path, test)


@pytest.mark.parametrize("silent", [is_silent, hangs])
def test_a_watch_that_says_nothing_is_given_up(tmp_path: Path, silent: Behaviour) -> None:
    async def test(api: ScriptedApiServer, followed: Followed) -> None:
        api.watching = silent
        api.break_watches()
        api.put(C)
        await followed.until("ac")
        await until(lambda: followed.source.problem != "")

    follow(tmp_path, test, Pace(answer_s=0.2, silent_s=0.2, retry_s=0.01, retry_most_s=0.05))


def test_a_watch_that_never_ends_is_ended(tmp_path: Path) -> None:
    async def test(api: ScriptedApiServer, followed: Followed) -> None:
        api.deaf = True
        await until(lambda: len(api.watches) > 2)

    follow(tmp_path, test, Pace(answer_s=0.1, watch_s=0.1, retry_s=0.01, retry_most_s=0.05))


def test_a_watch_asks_for_signs_of_life_and_an_end(tmp_path: Path) -> None:
    async def test(api: ScriptedApiServer, followed: Followed) -> None:
        (asked,) = api.watches
        assert asked["allowWatchBookmarks"] == "1"
        assert 300 <= int(asked["timeoutSeconds"]) <= 600

    follow(tmp_path, test)


NONSENSE = [
    b"{",
    b"\xff\xfe\n",
    b'{"type":"ADDED","object":{"metadata":{}}}\n',
    b'{"type":"ADDED","object":7}\n',
    b'{"type":"ERROR","object":{"code":500,"message":"etcd is away"}}\n',
    b'{"type":"ERROR","object":"what"}\n',
    b"[" * 100_000 + b"\n",
    b" " * (5 << 20),
]


@pytest.mark.parametrize("nonsense", NONSENSE, ids=range(len(NONSENSE)))
@pytest.mark.parametrize("what", ["listing", "watching"])
def test_nonsense_changes_nothing(tmp_path: Path, what: str, nonsense: bytes) -> None:
    async def test(api: ScriptedApiServer, followed: Followed) -> None:
        before = followed.told[:]
        setattr(api, what, says(nonsense))
        api.break_watches()
        lists = api.lists
        await until(lambda: api.lists > lists + 2)
        assert followed.told == before
        setattr(api, what, None)
        api.put(C)
        await followed.until("ac")

    follow(tmp_path, test)


def test_bookmarks_change_nothing(tmp_path: Path) -> None:
    bookmark = b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9"}}}\n'

    async def test(api: ScriptedApiServer, followed: Followed) -> None:
        api.watching = says(bookmark)
        api.break_watches()
        await until(lambda: len(api.watches) > 2)
        assert (followed.names, followed.source.problem) == ("a", "")

    follow(tmp_path, test)


def test_slices_that_are_not_of_nodes_change_nothing_and_are_told(tmp_path: Path) -> None:
    async def test(api: ScriptedApiServer, followed: Followed) -> None:
        api.put({**C, "ports": [{"name": "web", "port": 80}]})
        await until(lambda: followed.source.problem != "")
        assert followed.source.problem == "EndpointSlice two: ports: none is named 'api'"
        assert followed.names == "a"
        api.put(C)
        await followed.until("ac")
        assert followed.source.problem == ""

    follow(tmp_path, test)


def test_while_the_api_server_is_away_the_last_list_counts(tmp_path: Path) -> None:
    async def following() -> None:
        api = ScriptedApiServer()
        async with serving(api):
            api.put(A)
            followed = Followed(api, tmp_path, QUICK)
            await followed.source.start(followed.told.append)
        await until(lambda: "Connect call failed" in followed.source.problem)
        assert followed.names == "a"
        api.put(AB)
        async with serving(api):
            await followed.until("ab")
            assert followed.source.problem == ""
            await followed.source.close()

    asyncio.run(asyncio.wait_for(following(), DEADLINE_S))


def test_a_router_starts_without_the_api_server_and_takes_its_nodes_later(tmp_path: Path) -> None:
    async def test(api: ScriptedApiServer, followed: Followed) -> None:
        assert followed.told == [()]
        await until(lambda: "503: not yet" in followed.source.problem)
        api.listing = None
        await followed.until("a")

    not_yet = says(b'{"kind":"Status","code":503,"message":"not yet"}', status=503)
    pace = Pace(first_s=0.1, retry_s=0.01, retry_most_s=0.05)
    follow(tmp_path, test, pace, ScriptedApiServer(listing=not_yet))


def test_a_token_that_was_replaced_is_used(tmp_path: Path) -> None:
    async def test(api: ScriptedApiServer, followed: Followed) -> None:
        api.accepted = {"another"}
        api.break_watches()
        await until(lambda: "401: Unauthorized" in followed.source.problem)
        assert "token" not in followed.source.problem
        followed.token.write_text("another")
        api.put(C)
        await followed.until("ac")

    follow(tmp_path, test)


def test_a_token_that_can_not_be_read_is_a_problem_that_may_pass(tmp_path: Path) -> None:
    async def test(api: ScriptedApiServer, followed: Followed) -> None:
        followed.token.unlink()
        api.break_watches()
        await until(lambda: "No such file" in followed.source.problem)
        followed.token.write_text("token")
        api.put(C)
        await followed.until("ac")

    follow(tmp_path, test)


def test_a_pod_finds_the_api_server_by_its_environment() -> None:
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}
    access = Access.of_pod(environ, Path("/account"))
    assert access == Access("https://[fd00::1]:6443", Path("/account/token"), Path("/account/ca.crt"))
    with pytest.raises(DocumentError, match="nodes_service: KUBERNETES_SERVICE_HOST is not set"):
        Access.of_pod({})
