"""Ten thousand requests, some of whose clients and nodes leave in the middle: nothing stays behind."""

from __future__ import annotations

import asyncio
import random

import pytest

from http_calls import get
from router_process import TOKEN, RouterProcess, ready, router
from running_router import Caller, chat, run
from scripted_node import Behaviour, Received, ScriptedNode, answer, drop, running, stream

REQUESTS = 10_000
CALLERS = 8
GROWTH_BYTES = 4 * 1024 * 1024
"""What the allocator may make of one and the same load."""


def behaving(seed: int) -> Behaviour:
    draw = random.Random(seed)

    async def behave(node: ScriptedNode, request: Received, writer: asyncio.StreamWriter) -> bool:
        luck = draw.random()
        node.received.clear()
        if luck < 0.01:
            return await drop(node, request, writer)
        if request.json.get("stream"):
            breaks = draw.randrange(12) if luck < 0.03 else None
            return await stream(words=12, break_after=breaks)(node, request, writer)
        return await answer(b'{"choices":[]}')(node, request, writer)

    return behave


async def calls(process: RouterProcess, count: int, draw: random.Random) -> int:
    """How many were answered in full."""
    whole = 0
    caller: Caller | None = None
    for number in range(count):
        if caller is None:
            caller = Caller(*await asyncio.open_connection("127.0.0.1", process.port))
        request = chat(f"session {draw.randrange(32)} " * 40, stream=draw.random() < 0.5)
        luck = draw.random()
        if luck < 0.02:  # leaves at any moment
            await caller.send(request[: draw.randrange(len(request) + 1)])
            caller.close()
            caller = None
            continue
        try:
            whole += (await caller.ask(request)).status == 200
        except asyncio.IncompleteReadError:
            caller = None
        if number % 100 == 99 and caller is not None:
            caller.close()
            caller = None
    if caller is not None:
        caller.close()
    return whole


def figures(process: RouterProcess) -> tuple[float, list[int]]:
    headers = {"x-drift-token": TOKEN}
    report = get(process.admin_url, "/control/v1/report", headers).json
    nodes = get(process.admin_url, "/control/v1/nodes", headers).json["nodes"]
    return report["in_flight"] + report["queue_depth"], [
        node["in_flight"] + node["queued_tokens"] for node in nodes
    ]


@pytest.mark.slow
def test_memory_stays_and_counters_return_to_zero() -> None:
    async def test() -> None:
        nodes = [ScriptedNode(str(index), behaving(index), ours=index > 0) for index in range(3)]
        async with running(*nodes):
            urls = [f"{node.url},{node.url}" if node.ours else node.url for node in nodes]
            with router(*urls) as process:
                draw = random.Random(5)
                await ready(process)
                rss_bytes = []
                for share in (0.3, 0.7):
                    count = int(REQUESTS * share / CALLERS)
                    seeds = [random.Random(draw.random()) for _ in range(CALLERS)]
                    async with asyncio.timeout(90):
                        whole = await asyncio.gather(*[calls(process, count, seed) for seed in seeds])
                    assert sum(whole) > 0.9 * count * CALLERS
                    rss_bytes.append(process.rss_bytes)
                held, on_nodes = await asyncio.to_thread(figures, process)
                assert (held, on_nodes) == (0, [0, 0, 0])
                assert rss_bytes[1] - rss_bytes[0] < GROWTH_BYTES
                assert await asyncio.to_thread(process.stop) == 0

    run(test(), deadline_s=170)
