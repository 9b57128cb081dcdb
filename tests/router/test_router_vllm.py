"""A router before vLLM nodes: it knows which of them holds a text, from their events and their own tokenizer."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from drift_router.index import blocks
from drift_router.index.blocks import Blocks
from drift_router.options import RouterOptions
from drift_router.process import Router
from drift_router.snapshots import IndexState
from drift_router.worker import Worker
from running_router import PATIENT, Caller, chat, run
from scripted_node import Behaviour, Received, ScriptedNode, answer, running
from vllm_node import BLOCK_TOKENS, Cache, Publisher
from waiting import until

LATER_S = 60.0
"""When no dispatch counts any more: what is known then is known from events."""

ADDRESS = "".join(f"Line {line}: every prompt begins with its own words. " for line in range(100))


def spelled(body: dict[str, Any]) -> list[int]:
    """A token for each four characters, after the four of a chat template."""
    prompt = body.get("prompt")
    if isinstance(prompt, list):
        return [token for token in prompt if isinstance(token, int) and 0 <= token < 1 << 31]
    text = json.dumps(body["messages"])
    return [1, 2, 3, 4, *(hash_of(text[start : start + 4]) for start in range(0, len(text), 4))]


def hash_of(piece: str) -> int:
    return int.from_bytes(piece.encode().ljust(4)) % 100_000


class Node:
    """The API and the publisher of one vLLM process."""

    def __init__(self, name: str, tokenize: Behaviour | None = None) -> None:
        self.publisher = Publisher()
        self.cache = Cache()
        self.api = ScriptedNode(name, self._behave)
        self._tokenize = tokenize

    @property
    def listed(self) -> str:
        return f"{self.api.url},events={self.publisher.events_url},replay={self.publisher.replay_url}"

    @property
    def questions(self) -> list[Received]:
        return [one for one in self.api.received if one.target == "/tokenize"]

    async def happens(self, events: list[Any]) -> None:
        await self.publisher.publish(self.cache.batch(events))

    async def _behave(self, node: ScriptedNode, request: Received, writer: asyncio.StreamWriter) -> bool:
        tokens = spelled(request.json)
        if request.target == "/tokenize":
            told = self._tokenize or answer(json.dumps({"count": len(tokens), "tokens": tokens}).encode())
            return await told(node, request, writer)
        await self.happens(self.cache.store(tokens))
        return await answer(b'{"choices":[]}')(node, request, writer)


@contextlib.asynccontextmanager
async def routing(*nodes: Node) -> AsyncIterator[Worker]:
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(running(*[node.api for node in nodes]))
        for node in nodes:
            await stack.enter_async_context(node.publisher)
        asked = RouterOptions(port=0, nodes=tuple(node.listed for node in nodes), patience=PATIENT)
        worker = Worker(asked)
        router = Router(asked, worker)
        await router.start()
        try:
            await until(lambda: len(worker.registry.snapshot(worker.now_s())) == len(nodes))
            for slot, node in enumerate(nodes):
                await joined(worker, slot, node)
            yield worker
        finally:
            await router.stop()
            await worker.stop()


async def joined(worker: Worker, slot: int, node: Node) -> None:
    """What is published from here on reaches the router at once."""
    other = list(range(200_000, 200_000 + 64 * BLOCK_TOKENS))
    while (aliases := worker.routing.aliases(slot)) is None or not aliases.page_tokens:
        await node.happens(node.cache.store(other) or node.cache.remove(other))
        await asyncio.sleep(0.01)
    assert worker.index.state(slot) is IndexState.EXACT


def text_of(content: str) -> Blocks:
    text = json.dumps([{"role": "user", "content": content}], separators=(",", ":")).encode()
    return blocks.split(text, blocks.root(b"", b"drift-tiny", b""))


def held(worker: Worker, content: str) -> dict[int, float]:
    """Slot -> share of the text's blocks that the node holds, as its events say."""
    names = text_of(content).names
    found = worker.index.match(names, worker.now_s() + LATER_S)
    return {slot: depth / len(names) for slot, depth in found.items()}


def served(test: Callable[[Worker, Caller, Node, Node], Awaitable[None]]) -> None:
    async def whole() -> None:
        one, other = Node("one"), Node("other")
        async with routing(one, other) as worker:
            await test(worker, await Caller.connect(worker), one, other)

    run(whole())


def test_a_text_that_was_answered_is_found_until_the_node_drops_it() -> None:
    async def test(worker: Worker, caller: Caller, *nodes: Node) -> None:
        assert (await caller.ask(chat(ADDRESS))).status == 200
        await until(lambda: bool(held(worker, ADDRESS)))
        ((slot, share),) = held(worker, ADDRESS).items()
        assert share > 0.9
        node = nodes[slot]
        await node.happens(node.cache.clear())
        await until(lambda: not held(worker, ADDRESS))

    served(test)


def test_what_one_node_spelled_is_found_on_all() -> None:
    async def test(worker: Worker, caller: Caller, *nodes: Node) -> None:
        await caller.ask(chat(ADDRESS))
        await until(lambda: bool(held(worker, ADDRESS)))
        ((slot, _),) = held(worker, ADDRESS).items()
        other = nodes[1 - slot]
        await other.happens(other.cache.store(spelled({"messages": [{"role": "user", "content": ADDRESS}]})))
        await until(lambda: len(held(worker, ADDRESS)) == 2)
        node = nodes[slot]
        await node.happens(node.cache.clear())
        await until(lambda: list(held(worker, ADDRESS)) == [1 - slot])

    served(test)


def test_a_text_is_asked_about_again_when_it_has_grown_by_an_eighth() -> None:
    async def test(worker: Worker, caller: Caller, *nodes: Node) -> None:
        def questions() -> int:
            return sum(len(node.questions) for node in nodes)

        await caller.ask(chat(ADDRESS))
        await until(lambda: bool(held(worker, ADDRESS)))
        assert questions() == 1
        for grown in (ADDRESS, ADDRESS + "a" * (len(ADDRESS) // 16)):
            await caller.ask(chat(grown))
        assert questions() == 1
        longer = ADDRESS + "a" * (len(ADDRESS) // 4)
        await caller.ask(chat(longer))
        await until(lambda: questions() == 2)
        await until(lambda: max(held(worker, longer).values()) > 0.97)

    served(test)


def test_a_prompt_of_tokens_needs_no_question() -> None:
    async def test(worker: Worker, caller: Caller, *nodes: Node) -> None:
        tokens = list(range(1000, 2600))
        request = chat("", path="/v1/completions", prompt=tokens)
        assert (await caller.ask(request)).status == 200
        text = json.dumps(tokens, separators=(",", ":")).encode()
        names = blocks.split(text, blocks.root(b"", b"drift-tiny", b"")).names
        await until(lambda: bool(worker.index.match(names, worker.now_s() + LATER_S)))
        assert not any(node.questions for node in nodes)

    served(test)


@pytest.mark.parametrize("prompt", [[ADDRESS, ADDRESS], [[1, 2], [3, 4]], [-1] * 900, [1 << 40] * 300])
def test_prompts_that_nobody_can_spell_are_served(prompt: object) -> None:
    async def test(worker: Worker, caller: Caller, *nodes: Node) -> None:
        for _ in range(2):
            assert (await caller.ask(chat("", path="/v1/completions", prompt=prompt))).status == 200
        assert worker.counters.node_failures == {}

    served(test)


def test_short_prompts_are_not_asked_about() -> None:
    async def test(worker: Worker, caller: Caller, *nodes: Node) -> None:
        for place in range(5):
            await caller.ask(chat(ADDRESS[place * 100 :][:500]))
        assert not any(node.questions for node in nodes)

    served(test)


def test_the_question_is_the_prompt_and_what_its_tokens_depend_on() -> None:
    async def test(worker: Worker, caller: Caller, *nodes: Node) -> None:
        tools = [{"type": "function", "function": {"name": "look"}}]
        request = chat(ADDRESS, tools=tools, temperature=0, headers={"authorization": "Bearer theirs"})
        await caller.ask(request)
        await until(lambda: any(node.questions for node in nodes))
        (question,) = [one for node in nodes for one in node.questions]
        assert question.json == {
            "model": "drift-tiny",
            "messages": [{"role": "user", "content": ADDRESS}],
            "tools": tools,
        }
        assert question.headers["authorization"] == "Bearer theirs"

    served(test)


@pytest.mark.parametrize(
    ("told", "questions"),
    [
        (answer(b"{}", "404 Not Found"), 1),
        (answer(b"{}", "500 Internal Server Error"), 3),
        (answer(b"garbage"), 3),
        (answer(b'{"tokens": [-1]}'), 3),
        (answer(b'{"tokens": [4294967296]}'), 3),
        (answer(b'{"tokens": []}'), 3),
        (answer(b'{"tokens": "all"}'), 3),
    ],
)
def test_a_node_that_cannot_spell_serves_all_the_same(told: Behaviour, questions: int) -> None:
    async def whole() -> None:
        node = Node("mute", told)
        async with routing(node) as worker:
            caller = await Caller.connect(worker)
            for place in range(3):
                assert (await caller.ask(chat(f"{place} {ADDRESS}"))).status == 200
                wanted = min(place + 1, questions)
                await until(lambda: len(node.questions) == wanted)  # noqa: B023 - awaited at once
                await asyncio.sleep(0.02)  # the answer may reach the router
            assert len(node.questions) == questions
            assert not held(worker, ADDRESS)

    run(whole())
