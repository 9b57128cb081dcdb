"""The index stays true to nodes whose events are followed, whatever happens to the connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Self

import pytest
from aiohttp import web

import api_node
from drift_engine import wire
from drift_engine.api.kv_events import Gone, KvLog
from drift_router.index import events
from drift_router.index.blocks import Blocks
from drift_router.index.hints import Hints
from drift_router.index.prefixes import PrefixIndex
from drift_router.nodes import control_feed, feeds, following
from drift_router.snapshots import IndexState
from waiting import until

TOKEN = "secret"
SLOT = 3
QUICK = feeds.Pace(answer_s=0.5, state_s=0.5, retry_s=0.005, retry_most_s=0.02, silent_s=0.3)
TEXT = Blocks(list(range(1000, 1064)), list(range(64, 4097, 64)), 4096)  # a block for each of its pages
PAGES = [4 * (index + 1) for index in range(64)]


class ControlPort:
    """A node's events as the node serves them, until a test has it misbehave."""

    def __init__(self) -> None:
        self.log = KvLog()
        self.states_served = 0
        self.streams_opened = 0
        self.raw: list[bytes] = []
        """Written into the open stream instead of what has happened."""
        self.hangs = False
        self.forgets = False
        """Its log does not reach back far enough, ever."""
        self.url = ""
        self._nudged = asyncio.Event()
        self._cut = asyncio.Event()
        app = web.Application()
        app.router.add_get("/kv/v1/state", self._state)
        app.router.add_get("/kv/v1/events", self._events)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def happens(self, *changes: wire.KvEvent) -> None:
        self.log.add(wire.KvEvents(self.log.sequence + 1, list(changes)))
        self.nudge()

    def says(self, raw: bytes) -> None:
        self.raw.append(raw)
        self.nudge()

    def nudge(self) -> None:
        nudged, self._nudged = self._nudged, asyncio.Event()
        nudged.set()

    def cut(self) -> None:
        """Ends every connection in the middle of whatever it was."""
        cut, self._cut = self._cut, asyncio.Event()
        cut.set()

    def restart(self, pages: Iterable[int] = ()) -> None:
        self.log = KvLog()
        if pages := list(pages):
            self.log.add(wire.KvEvents(1, [stored(pages)]))

    async def _answers(self, request: web.Request) -> None:
        if request.headers.get("x-drift-token") != TOKEN:
            raise web.HTTPUnauthorized
        if self.hangs:
            await asyncio.sleep(60)

    async def _state(self, request: web.Request) -> web.Response:
        self.states_served += 1
        await self._answers(request)
        return web.json_response(self.log.state())

    async def _events(self, request: web.Request) -> web.StreamResponse:
        await self._answers(request)
        sequence, cut = int(request.query["after"]), self._cut
        try:
            self.log.after(sequence + self.forgets)
        except Gone as error:
            raise web.HTTPGone from error
        response = web.StreamResponse()
        await response.prepare(request)
        self.streams_opened += 1
        ended = asyncio.ensure_future(cut.wait())
        try:
            while not cut.is_set():
                nudged = asyncio.ensure_future(self._nudged.wait())
                while self.raw:
                    await response.write(self.raw.pop(0))
                for event in self.log.after(sequence):
                    sequence = event["sequence"]
                    await response.write(json.dumps(event).encode() + b"\n")
                await asyncio.wait({nudged, ended}, return_when=asyncio.FIRST_COMPLETED)
                nudged.cancel()
        finally:
            ended.cancel()
        assert request.transport is not None
        request.transport.abort()
        return response


def stored(pages: list[int]) -> wire.Stored:
    return wire.Stored(pages, None, list(range(16 * len(pages))), 16)


class Setting:
    """A follower of one node, and an index that knows which text the node's pages are."""

    def __init__(self, pace: feeds.Pace = QUICK) -> None:
        self.index = PrefixIndex(1 << 20)
        self.index.learned(TEXT, Hints(16, 1024, 0, list(range(64)), PAGES))
        self.following = following.Following(self.index, pace)
        self.node = ControlPort()

    @property
    def held(self) -> int:
        return self.index.match(TEXT.names, 0.0).get(SLOT, 0)

    @property
    def state(self) -> IndexState:
        return self.index.state(SLOT)

    def holds(self, pages: int) -> Callable[[], bool]:
        return lambda: self.state is IndexState.EXACT and self.held == pages


def follow(test: Callable[[Setting], Awaitable[None]]) -> None:
    async def run() -> None:
        setting = Setting()
        async with setting.node:
            setting.following.start(SLOT, setting.node.url + "/", TOKEN)
            try:
                await until(lambda: setting.node.streams_opened == 1)
                # what comes by the stream says that the follower has it too
                setting.node.happens(stored(PAGES[:8]))
                await until(setting.holds(8))
                await test(setting)
            finally:
                await setting.following.close()

    asyncio.run(run())


def test_every_change_arrives() -> None:
    async def test(setting: Setting) -> None:
        setting.node.happens(stored(PAGES[8:32]))
        await until(setting.holds(32))
        setting.node.happens(wire.Removed(PAGES[20:32]), stored(PAGES[20:24]))
        await until(setting.holds(24))
        setting.node.happens(wire.Cleared())
        await until(setting.holds(0))
        setting.node.happens(*[stored([page]) for page in PAGES])
        await until(setting.holds(64))
        assert setting.node.states_served == 1

    follow(test)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"sequence": 9, "type": "Cleared"}\n',
        b'{"sequence": 1, "type": "Cleared"}\n',
        b'{"sequence": 2, "type": "Unheard"}\n',
        b'{"sequence": 2, "type": "Stored"}\n',
        b'{"sequence": 2, "type": "Stored", "block_hashes": [-4]}\n',
        b'{"sequence": 2, "type": "Removed", "block_hashes": [18446744073709551616]}\n',
        b'{"sequence": 2, "type": "Removed", "block_hashes": "all"}\n',
        b"\xff\xfe garbage\n",
        b"\n",
    ],
)
def test_what_does_not_follow_makes_it_read_everything_anew(raw: bytes) -> None:
    async def test(setting: Setting) -> None:
        setting.node.says(raw)
        await until(lambda: setting.state is IndexState.DEGRADED or setting.node.states_served == 2)
        assert setting.held == 8, "what was known stays as a guess"
        await until(lambda: setting.node.streams_opened == 2)
        setting.node.happens(stored(PAGES[8:16]))
        await until(setting.holds(16))

    follow(test)


def test_a_connection_that_is_cut_in_a_line_loses_nothing() -> None:
    async def test(setting: Setting) -> None:
        setting.node.says(b'{"sequence": 2, "type": "Clea')
        await until(lambda: not setting.node.raw)
        setting.node.cut()
        setting.node.happens(stored(PAGES[8:16]))
        await until(setting.holds(16))
        assert setting.node.states_served == 2

    follow(test)


def test_a_line_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_feed, "MAX_LINE_BYTES", 10_000)

    async def test(setting: Setting) -> None:
        setting.node.says(b"[" * 20_000)
        await until(lambda: setting.node.states_served == 2)
        await until(setting.holds(8))

    follow(test)


def test_a_state_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(setting: Setting) -> None:
        monkeypatch.setattr(control_feed, "MAX_STATE_BYTES", 10)
        setting.node.cut()
        await until(lambda: setting.state is IndexState.FALLBACK)
        monkeypatch.undo()
        await until(setting.holds(8))

    follow(test)


@pytest.mark.parametrize("pages", [0, 4])
def test_a_node_that_restarts_at_the_same_address_is_read_anew(pages: int) -> None:
    async def test(setting: Setting) -> None:
        setting.node.happens(wire.Removed(PAGES[7:8]), stored(PAGES[7:20]))
        await until(setting.holds(20))
        setting.node.restart(PAGES[:pages])
        setting.node.cut()
        await until(setting.holds(pages))
        setting.node.happens(stored(PAGES[pages:30]))
        await until(setting.holds(30))

    follow(test)


def test_a_log_that_is_gone_is_read_anew() -> None:
    async def test(setting: Setting) -> None:
        setting.node.forgets = True
        setting.node.cut()
        await until(lambda: setting.node.states_served >= 3)
        setting.node.forgets = False
        setting.node.happens(stored(PAGES[8:16]))
        await until(setting.holds(16))

    follow(test)


def test_a_node_that_hangs_becomes_one_without_events_and_comes_back() -> None:
    async def test(setting: Setting) -> None:
        setting.node.hangs = True
        setting.node.cut()
        await until(lambda: setting.state is IndexState.DEGRADED)
        assert setting.held == 8
        await until(lambda: setting.state is IndexState.FALLBACK)
        assert setting.held == 0
        setting.index.sent(SLOT, TEXT.names[:5], 0.0)
        assert setting.held == 5
        setting.node.hangs = False
        await until(setting.holds(8))

    follow(test)


@pytest.mark.parametrize(("token", "path"), [("wrong", ""), (TOKEN, "/elsewhere")])
def test_a_node_that_lets_nobody_in_is_one_without_events(token: str, path: str) -> None:
    async def test(setting: Setting) -> None:
        setting.following.start(SLOT, setting.node.url + path, token)
        await until(lambda: setting.state is IndexState.FALLBACK)
        setting.following.start(SLOT, setting.node.url, TOKEN)
        await until(setting.holds(8))

    follow(test)


def test_what_is_stopped_changes_nothing_any_more() -> None:
    async def test(setting: Setting) -> None:
        setting.following.stop(SLOT)
        setting.index.forget(SLOT)
        setting.node.happens(stored(PAGES[8:16]))
        await asyncio.sleep(0.05)
        assert setting.held == 0
        assert setting.state is IndexState.FALLBACK
        setting.following.stop(SLOT)
        setting.following.expect(SLOT, 7, 0.0)

    follow(test)


def test_a_stream_that_a_report_is_ahead_of_for_long_is_dead() -> None:
    async def test(setting: Setting) -> None:
        for now_s in (100.0, 110.0, 120.0):
            setting.following.expect(SLOT, 1, now_s)
        setting.following.expect(SLOT, 2, 121.0)
        setting.following.expect(SLOT, 4, 121.0 + control_feed.LAG_S)
        await asyncio.sleep(0.02)
        assert setting.node.states_served == 1, "it may be a little late"
        setting.following.expect(SLOT, 4, 121.1 + control_feed.LAG_S)
        await until(lambda: setting.node.states_served == 2)
        await until(setting.holds(8))

    follow(test)


def test_a_stream_keeps_up_when_what_was_owed_came_and_more_is_owed() -> None:
    agreement = control_feed.Agreement()
    for now_s, followed, reported in [
        (0.0, 0, 9),
        (4.0, 9, 20),
        (8.0, 21, 40),
        (12.0, 41, 41),
        (60.0, 50, 49),
    ]:
        assert agreement.holds(followed, reported, now_s)


def test_a_report_that_stays_behind_the_events_is_of_a_node_that_began_anew() -> None:
    agreement = control_feed.Agreement()
    assert agreement.holds(50, 50, 0.0)
    assert agreement.holds(52, 51, 1.0), "it was asked a moment ago"
    assert agreement.holds(52, 3, 1.0 + control_feed.LAG_S)
    assert not agreement.holds(52, 4, 1.1 + control_feed.LAG_S)


def test_a_node_of_our_own_is_followed() -> None:
    async def run(node: api_node.ApiNode) -> None:
        setting = Setting(feeds.Pace())
        await asyncio.to_thread(node.call, lambda: node.kv_events(wire.KvEvents(1, [stored(PAGES[:8])])))
        setting.following.start(SLOT, node.control_url, api_node.CONTROL_TOKEN)
        try:
            await until(setting.holds(8))
            more = wire.KvEvents(2, [stored(PAGES[8:20]), wire.Removed(PAGES[15:20])])
            await asyncio.to_thread(node.call, lambda: node.kv_events(more))
            await until(setting.holds(15))
        finally:
            await setting.following.close()

    with api_node.node() as node:
        asyncio.run(run(node))


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{}",
        b'{"sequence": 1}',
        b'{"sequence": 1, "blocks": [4]}',
        b'{"sequence": "1", "blocks": []}',
    ],
)
def test_a_state_that_is_none_is_refused(document: bytes) -> None:
    with pytest.raises(events.Malformed, match="state"):
        events.parse_state(document)


def test_a_state_with_names_out_of_range_is_refused() -> None:
    document: dict[str, Any] = {"sequence": 1, "page_tokens": 16, "blocks": [[1 << 64, None]]}
    with pytest.raises(events.Malformed, match="64-bit"):
        events.parse_state(json.dumps(document).encode())
