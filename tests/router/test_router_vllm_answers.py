"""A router before servers that send what vLLM sends: it passes untouched, and is understood as far as it counts."""

from __future__ import annotations

import asyncio

import pytest

import vllm_answers
from running_router import Caller, ask, chat, routing, run
from scripted_node import Behaviour, Received, ScriptedNode, raw

STREAMS = {
    "text": vllm_answers.CHAT,
    "reasoning": vllm_answers.THINKING,
    "a tool": vllm_answers.TOOL,
    "an engine that died": vllm_answers.BROKEN,
}


def says(data: bytes) -> ScriptedNode:
    return ScriptedNode("vllm", raw(data, then_close=False))


@pytest.mark.parametrize("events", STREAMS.values(), ids=STREAMS)
def test_a_stream_passes_untouched_and_the_connection_stays(events: list[str]) -> None:
    async def test() -> None:
        node = says(vllm_answers.streamed(events))
        async with routing(node) as router:
            caller = await Caller.connect(router)
            for _ in range(2):
                found = await caller.ask(chat(stream=True, stream_options={"include_usage": True}))
                assert (found.status, found.body) == (200, vllm_answers.body(events))
                assert found.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert len(node.generations) == 2
            assert router.counters.node_failures == {}

    run(test())


def test_a_stream_arrives_whole_however_it_is_cut() -> None:
    data = vllm_answers.streamed(vllm_answers.CHAT)

    def cut(size: int) -> Behaviour:
        async def behave(node: ScriptedNode, request: Received, writer: asyncio.StreamWriter) -> bool:
            for start in range(0, len(data), size):
                writer.write(data[start : start + size])
                await writer.drain()
                await asyncio.sleep(0)
            return True

        return behave

    async def test() -> None:
        for size in (7, 64, 1000):
            async with routing(ScriptedNode("vllm", cut(size))) as router:
                found = await ask(router, chat(stream=True))
                assert found.body == vllm_answers.body(vllm_answers.CHAT)

    run(test())


@pytest.mark.parametrize(
    ("data", "tokens"),
    [
        (vllm_answers.streamed(vllm_answers.CHAT), 5),
        (vllm_answers.streamed(vllm_answers.TOOL), 4),
        (vllm_answers.answered(vllm_answers.WHOLE), 5),
    ],
    ids=["stream", "tool", "whole"],
)
def test_tokens_are_counted_as_vllm_counts_them(data: bytes, tokens: int) -> None:
    async def test() -> None:
        async with routing(says(data)) as router:
            await ask(router, chat(stream=b"event-stream" in data))
            assert router.counters.tally.output_tokens == tokens

    run(test())


@pytest.mark.parametrize(
    ("status", "body"),
    [("404 Not Found", vllm_answers.UNKNOWN_MODEL), ("400 Bad Request", vllm_answers.TOO_LONG)],
    ids=["unknown model", "too long"],
)
def test_a_clients_mistake_is_told_as_vllm_tells_it_and_is_nobodys_failure(status: str, body: bytes) -> None:
    async def test() -> None:
        nodes = [says(vllm_answers.answered(body, status)) for _ in range(2)]
        async with routing(*nodes) as router:
            found = await ask(router, chat())
            assert (f"{found.status}", found.body) == (status[:3], body)
            assert sum(len(node.generations) for node in nodes) == 1
            assert router.counters.node_failures == {}

    run(test())


def test_a_server_that_is_not_ready_is_no_answer_while_another_one_is() -> None:
    async def test() -> None:
        waking = says(vllm_answers.answered(vllm_answers.NOT_READY, "503 Service Unavailable"))
        awake = says(vllm_answers.answered(vllm_answers.WHOLE))
        async with routing(waking, awake, policy="round-robin") as router:
            found = [await ask(router, chat(str(index))) for index in range(4)]
            assert {(one.status, one.body) for one in found} == {(200, vllm_answers.WHOLE)}
            assert waking.generations

    run(test())


def test_its_list_of_models_is_told_as_it_is() -> None:
    async def test() -> None:
        node = says(b"")
        node.pages["/v1/models"] = vllm_answers.MODELS
        async with routing(node) as router:
            found = await ask(router, b"GET /v1/models HTTP/1.1\r\nhost: router\r\n\r\n")
            assert found.body == vllm_answers.MODELS

    run(test())
