"""The index stays true to a vLLM node whose event publisher is followed, whatever happens to its messages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from drift_engine import hashing
from drift_router.index.blocks import Blocks
from drift_router.index.hints import Hints
from drift_router.index.prefixes import PrefixIndex
from drift_router.nodes import feeds, following, zmq_feed
from drift_router.snapshots import IndexState
from vllm_node import BLOCK_TOKENS, Cache, Publisher
from waiting import until

SLOT = 3
QUICK = feeds.Pace(answer_s=0.5, state_s=5.0, retry_s=0.005, retry_most_s=0.02, silent_s=0.3)
PAGES = 64
PROMPT = list(range(5000, 5000 + PAGES * BLOCK_TOKENS))
NAMES = list(hashing.names(PROMPT, "", BLOCK_TOKENS))
KEPT = [index for index, name in enumerate(NAMES) if not name % hashing.SAMPLE]
TEXT = Blocks(list(range(1000, 1000 + len(KEPT))), [64 * (index + 1) for index in KEPT], 64 * PAGES)
"""A block for each page that an index keeps."""


class Setting:
    """A follower of one publisher, and an index that knows which text the node's pages are."""

    def __init__(self) -> None:
        self.index = PrefixIndex(1 << 20)
        self.index.learned(TEXT, Hints(BLOCK_TOKENS, len(PROMPT), 0, KEPT, [NAMES[index] for index in KEPT]))
        self.following = following.Following(self.index, QUICK)
        self.publisher = Publisher()
        self.cache = Cache()

    def subscribe(self) -> None:
        self.following.subscribe(SLOT, self.publisher.events_url, self.publisher.replay_url)

    async def happens(self, events: list[Any], *, lost: bool = False) -> None:
        await self.publisher.publish(self.cache.batch(events), lost=lost)

    async def stores(self, pages: int, *, lost: bool = False) -> None:
        await self.happens(self.cache.store(PROMPT[: pages * BLOCK_TOKENS]), lost=lost)

    @property
    def state(self) -> IndexState:
        return self.index.state(SLOT)

    def knows(self, pages: int, state: IndexState = IndexState.EXACT) -> Callable[[], bool]:
        kept = len([index for index in KEPT if index < pages])
        return lambda: self.state is state and self.index.match(TEXT.names, 0.0).get(SLOT, 0) == kept


def follow(test: Callable[[Setting], Awaitable[None]], *, subscribed: bool = True) -> None:
    async def run() -> None:
        setting = Setting()
        async with setting.publisher:
            try:
                if subscribed:
                    setting.subscribe()
                    await until(lambda: setting.state is IndexState.EXACT)
                    await joined(setting)
                await test(setting)
            finally:
                await setting.following.close()

    asyncio.run(asyncio.wait_for(run(), 30))


async def joined(setting: Setting) -> None:
    """What is published from here on reaches the follower at once: a subscription takes effect some time after it
    was asked for, and what came before then is only missed."""
    await setting.stores(8)
    while not setting.knows(8)():
        await setting.happens([])
        await asyncio.sleep(0.01)


def test_every_change_arrives() -> None:
    async def test(setting: Setting) -> None:
        asked = len(setting.publisher.asked)
        await setting.stores(40)
        await until(setting.knows(40))
        await setting.happens(setting.cache.remove(PROMPT[: 40 * BLOCK_TOKENS], 20))
        await until(setting.knows(20))
        await setting.happens(setting.cache.clear())
        await until(setting.knows(0))
        await setting.stores(64)
        await until(setting.knows(64))
        assert len(setting.publisher.asked) == asked, "nothing had to be asked for"

    follow(test)


def test_who_comes_late_learns_the_past(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zmq_feed, "CHECK_S", 0.05)

    async def test(setting: Setting) -> None:
        for pages in range(4, 64, 4):
            await setting.stores(pages)
        await setting.happens(setting.cache.remove(PROMPT[: 60 * BLOCK_TOKENS], 50))
        setting.subscribe()
        await until(setting.knows(50))
        await setting.stores(55)
        await until(setting.knows(55))

    follow(test, subscribed=False)


def test_a_past_that_is_partly_gone_is_a_guess_until_the_cache_is_cleared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(zmq_feed, "CHECK_S", 0.05)

    async def test(setting: Setting) -> None:
        setting.publisher.buffer_steps = 1
        await setting.publisher.restart()
        other = list(range(90_000, 90_000 + 4 * BLOCK_TOKENS))
        await setting.happens(setting.cache.store(other))
        await setting.stores(30)
        setting.subscribe()
        await until(setting.knows(30, IndexState.DEGRADED))
        await setting.happens(setting.cache.clear())
        await until(setting.knows(0))
        await setting.stores(12)
        await until(setting.knows(12))

    follow(test, subscribed=False)


def test_a_gap_is_filled_from_what_the_publisher_kept() -> None:
    async def test(setting: Setting) -> None:
        await setting.stores(20, lost=True)
        await setting.stores(30, lost=True)
        asked = len(setting.publisher.asked)
        await setting.stores(40)
        await until(setting.knows(40))
        assert len(setting.publisher.asked) == asked + 1
        await setting.stores(50)
        await until(setting.knows(50))
        assert len(setting.publisher.asked) == asked + 1

    follow(test)


def test_a_gap_that_cannot_be_filled_leaves_only_what_is_certain() -> None:
    async def test(setting: Setting) -> None:
        setting.publisher._buffer.clear()
        await setting.stores(20, lost=True)
        setting.publisher._buffer.clear()
        await setting.happens(setting.cache.clear(), lost=True)
        setting.publisher._buffer.clear()
        await setting.stores(10)
        await until(setting.knows(10, IndexState.DEGRADED))

    follow(test)


@pytest.mark.parametrize("pages", [0, 5])
def test_a_process_that_began_anew_is_read_anew(pages: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zmq_feed, "CHECK_S", 0.05)

    async def test(setting: Setting) -> None:
        await setting.stores(30)
        await until(setting.knows(30))
        setting.cache = Cache()
        await setting.publisher.restart()
        if pages:
            await setting.stores(pages)
        await until(setting.knows(pages))

    follow(test)


def test_what_was_lost_before_silence_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zmq_feed, "CHECK_S", 0.05)

    async def test(setting: Setting) -> None:
        await setting.stores(30, lost=True)
        await until(setting.knows(30))

    follow(test)


@pytest.mark.parametrize(
    "frames",
    [
        [b""],
        [b"", b"\x00" * 7, b""],
        [b"", b"\x00" * 8, b"\x90"],
        [b"", b"\xff" * 8, b"\x90"],
        [b"", (1 << 40).to_bytes(8, "big"), b"\x92\xcb\x00\x00\x00\x00\x00\x00\x00\x00\x90"],
        [b"", b"\x00" * 8, b"\x00", b"\x00"],
    ],
)
def test_what_is_no_message_of_a_publisher_costs_a_moment(frames: list[bytes]) -> None:
    async def test(setting: Setting) -> None:
        asked = len(setting.publisher.asked)
        await setting.publisher.say(frames)
        await until(lambda: len(setting.publisher.asked) > asked)
        await until(setting.knows(8))
        await joined(setting)
        await setting.stores(12)
        await until(setting.knows(12))

    follow(test)


def test_a_batch_that_nobody_can_read_makes_it_a_node_without_events() -> None:
    async def test(setting: Setting) -> None:
        await setting.publisher.publish(b"\xc1 garbage")
        await until(lambda: setting.state is IndexState.FALLBACK)
        setting.index.sent(SLOT, TEXT.names[:5], 0.0)
        assert setting.index.match(TEXT.names, 0.0) == {SLOT: 5}

    follow(test)


def test_a_publisher_that_answers_nothing_is_a_node_without_events_until_it_does() -> None:
    async def test(setting: Setting) -> None:
        setting.publisher.deaf = True
        await setting.stores(20)
        setting.subscribe()
        await until(lambda: len(setting.publisher.asked) > 1)
        assert setting.state is IndexState.FALLBACK
        setting.publisher.deaf = False
        await until(setting.knows(20))

    follow(test, subscribed=False)


def test_what_is_stopped_changes_nothing_any_more() -> None:
    async def test(setting: Setting) -> None:
        setting.following.stop(SLOT)
        setting.index.forget(SLOT)
        await setting.stores(20)
        await asyncio.sleep(0.05)
        assert setting.knows(0, IndexState.FALLBACK)()

    follow(test)
