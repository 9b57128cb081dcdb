"""What a router counts of requests for whoever scales it: over real sockets, and by promise."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from drift_router.counters import Tally
from drift_router.options import Promise
from drift_router.worker import Worker
from running_router import Answer, Caller, ask, chat, routing, run
from scripted_node import ScriptedNode, answer, drop, stream
from waiting import until

USED = b'{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens": 17,"total_tokens":26}}'
BOTH = b'{"choices":[{"text":"{\\"completion_tokens\\": 5}"}],"usage":{"completion_tokens":3}}'


def tally(router: Worker) -> Tally:
    return router.counters.tally


async def stream_of(router: Worker, **fields: Any) -> Answer:
    return await ask(router, chat(stream=True, **fields))


def test_a_stream_is_judged_and_its_tokens_are_those_that_its_node_named() -> None:
    async def test() -> None:
        async with routing(ScriptedNode("a", stream(words=7, gap_s=0.02), ours=True)) as router:
            await stream_of(router)
            found = tally(router)
        assert (found.requests, found.output_tokens) == (1, 7)
        assert found.ttft_kept + found.ttft_missed == found.ttft.count == 1
        assert found.tbt_kept + found.tbt_missed == 1
        assert (found.class_requests, found.overloaded, found.failed) == ([1, 0, 0, 0, 0, 0], 0, 0)

    run(test())


def test_an_answer_in_one_piece_is_counted_by_its_usage_and_not_judged() -> None:
    async def test() -> None:
        for body, tokens in ((USED, 17), (BOTH, 3)):
            async with routing(ScriptedNode("a", answer(body))) as router:
                await ask(router, chat())
                found = tally(router)
            assert (found.requests, found.output_tokens) == (1, tokens)
            assert (found.ttft.count, found.ttft_kept, found.ttft_missed) == (0, 0, 0)
            assert sum(found.class_requests) == 1

    run(test())


def test_a_foreign_stream_without_usage_is_counted_by_its_writes() -> None:
    async def test() -> None:
        async with routing(ScriptedNode("a", stream(words=5, gap_s=0.01))) as router:
            await stream_of(router)
            assert 1 <= tally(router).output_tokens <= 5

    run(test())


def test_the_node_says_how_long_the_prompt_was_and_what_it_held_of_it() -> None:
    async def test() -> None:
        node = ScriptedNode("a", answer(USED, extra="x-drift-pages: 16;5000;1000;\r\n"), ours=True)
        async with routing(node) as router:
            await ask(router, chat())
            found = tally(router)
        assert (found.prompt_tokens, found.cached_tokens) == (5000, 1000)
        assert found.class_requests == [0, 0, 1, 0, 0, 0]
        assert found.class_uncached_tokens == [0, 0, 4000, 0, 0, 0]

    run(test())


def test_a_request_that_two_nodes_tried_is_one() -> None:
    async def test() -> None:
        nodes = ScriptedNode("a", drop), ScriptedNode("b", answer(USED))
        async with routing(*nodes, policy="round-robin") as router:
            for _ in range(4):
                assert (await ask(router, chat())).status == 200
            assert (tally(router).requests, sum(tally(router).class_requests)) == (4, 4)
        assert len(nodes[0].generations) > 0

    run(test())


def test_what_is_no_completion_is_not_counted() -> None:
    async def test() -> None:
        async with routing(ScriptedNode("a", answer(USED))) as router:
            await ask(router, b"GET /v1/models HTTP/1.1\r\nhost: r\r\n\r\n")
            assert tally(router) == Tally.fresh(0.4, 0.08)

    run(test())


def test_failures_and_want_of_room_are_told_apart() -> None:
    async def test() -> None:
        async with routing(ScriptedNode("a", drop)) as router:
            assert (await ask(router, chat())).status == 502
            assert (tally(router).overloaded, tally(router).failed) == (0, 1)
        full = ScriptedNode("a", answer(b"{}", status="429 Too Many Requests"))
        async with routing(full) as router:
            assert (await ask(router, chat())).status == 429
            assert (tally(router).overloaded, tally(router).failed) == (1, 0)
        assert sum(tally(router).class_requests) == 0

    run(test())


def test_with_a_new_promise_all_is_counted_anew_and_requests_in_flight_keep_theirs() -> None:
    async def test() -> None:
        gate = asyncio.Event()

        async def behave(node: ScriptedNode, request: Any, writer: asyncio.StreamWriter) -> bool:
            if not gate.is_set():
                gate.set()
                await asyncio.sleep(0.3)
            return await stream(words=3)(node, request, writer)

        asked = Promise(ttft_ms=100.0, tbt_ms=1e6)
        async with routing(ScriptedNode("a", behave, ours=True), promise=asked) as router:
            before = tally(router)
            late = asyncio.ensure_future(stream_of(router))
            await gate.wait()
            router.take_promise(Promise(ttft_ms=1e6, tbt_ms=1e6), 1)
            await late
            assert (before.ttft_missed, before.output_tokens) == (1, 3)
            assert tally(router) == Tally.fresh(1e3, 1e3, number=1)
            await stream_of(router)
            assert (tally(router).ttft_kept, tally(router).ttft_missed) == (1, 0)
            assert 1e3 in tally(router).ttft.edges

    run(test())


def test_a_client_that_leaves_has_had_what_it_had() -> None:
    async def test() -> None:
        node = ScriptedNode("a", stream(words=9, hang_after=4), ours=True)
        async with routing(node) as router:
            caller = await Caller.connect(router)
            await caller.send(chat(stream=True))
            await caller.reader.readuntil(b"w3 ")
            await until(lambda: len(_watched(router)) == 4)
            caller.close()
            await until(lambda: tally(router).output_tokens == 4)
            assert (tally(router).failed, tally(router).tbt_kept) == (0, 0)

    run(test())


def _watched(router: Worker) -> list[int]:
    return [
        token
        for one in router.serving._exchanges
        for token in (one._watched.token_ids if one._watched else [])
    ]


def test_the_report_is_what_was_counted() -> None:
    from drift_router.pictures import Recent

    async def test() -> None:
        async with routing(ScriptedNode("a", stream(words=4), ours=True)) as router:
            await stream_of(router)
            report = Recent().report(await router.picture(), 1.0)
        totals = msgspec.convert(msgspec.to_builtins(report), type(report)).totals
        assert (totals.requests, totals.output_tokens, totals.classes[0].requests) == (1, 4, 1)

    run(test())
