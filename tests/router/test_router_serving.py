"""A router before scripted nodes, over real sockets: what clients and nodes see of each other."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

import node_reports
from drift_engine import wire
from drift_router.options import Limits, Promise
from running_router import TOKEN, Caller, ask, chat, routing, run
from scripted_node import Received, ScriptedNode, answer, hang, raw, said, stream
from waiting import until

ANSWER = b'{"id":"chatcmpl-1","choices":[]}'


def test_an_answer_passes_untouched() -> None:
    async def test() -> None:
        node = ScriptedNode("a", answer(ANSWER, extra="x-own: thing\r\n"))
        async with routing(node) as router:
            found = await ask(router, chat("hi", headers={"x-request-id": "r1", "x-other": "kept"}))
        assert (found.status, found.body, found.headers["x-own"]) == (200, ANSWER, "thing")
        assert found.headers["x-request-id"] == "r1"
        (sent,) = node.generations
        assert sent.json["messages"][0]["content"] == "hi"
        assert (sent.headers["x-request-id"], sent.headers["x-other"]) == ("r1", "kept")

    run(test())


def test_a_stream_passes_and_its_tokens_stay_with_the_router() -> None:
    async def test() -> None:
        for ours in (False, True):
            node = ScriptedNode("a", stream(words=5), ours=ours)
            async with routing(node) as router:
                found = await ask(router, chat(stream=True))
            assert said(found.body) == "w0 w1 w2 w3 w4 "
            assert found.body.endswith(b"data: [DONE]\n\n")
            assert b": tokens" not in found.body
            assert not [name for name in found.headers if name.startswith("x-drift-")]

    run(test())


def test_connections_are_kept_on_both_sides() -> None:
    async def test() -> None:
        node = ScriptedNode("a", answer(ANSWER))
        async with routing(node) as router:
            before = node.connections
            caller = await Caller.connect(router)
            for _ in range(20):
                assert (await caller.ask(chat())).status == 200
            caller.close()
            assert node.connections - before <= 2  # one of ours, and the probe's

    run(test())


def test_pipelined_requests_are_answered_in_order() -> None:
    async def test() -> None:
        async def echo(node: ScriptedNode, request: object, writer: asyncio.StreamWriter) -> bool:
            text = node.generations[-1].json["messages"][0]["content"]
            await asyncio.sleep(0.02 if text == "0" else 0)
            return await answer(text.encode())(node, node.generations[-1], writer)

        nodes = [ScriptedNode(name, echo) for name in "ab"]
        async with routing(*nodes, limits=Limits(pipelined=4)) as router:
            caller = await Caller.connect(router)
            await caller.send(b"".join(chat(str(number)) for number in range(30)))
            assert [(await caller.answer()).body for _ in range(30)] == [b"%d" % n for n in range(30)]
            caller.close()

    run(test())


def test_a_client_that_waits_for_leave_to_send_gets_it() -> None:
    async def test() -> None:
        async with routing(ScriptedNode("a", answer(ANSWER))) as router:
            caller = await Caller.connect(router)
            head, _, body = chat(headers={"expect": "100-continue"}).partition(b"\r\n\r\n")
            await caller.send(head + b"\r\n\r\n")
            assert await caller.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            assert (await caller.ask(body)).status == 200
            caller.close()

    run(test())


def test_an_old_client_gets_a_stream_that_ends_with_its_connection() -> None:
    async def test() -> None:
        async with routing(ScriptedNode("a", stream(words=3))) as router:
            caller = await Caller.connect(router)
            found = await caller.ask(chat(stream=True).replace(b"HTTP/1.1", b"HTTP/1.0", 1))
            assert "transfer-encoding" not in found.headers
            assert said(found.body) == "w0 w1 w2 "

    run(test())


def test_a_chunked_request_reaches_the_node_whole() -> None:
    async def test() -> None:
        node = ScriptedNode("a", answer(ANSWER))
        async with routing(node) as router:
            whole = chat("in pieces")
            head, _, body = whole.partition(b"\r\n\r\n")
            head = b"\r\n".join(
                line for line in head.split(b"\r\n") if not line.startswith(b"content-length")
            )
            pieces = b"".join(
                b"%x\r\n%b\r\n" % (len(body[at : at + 7]), body[at : at + 7]) for at in range(0, len(body), 7)
            )
            found = await ask(
                router, head + b"\r\ntransfer-encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n"
            )
            assert found.status == 200
        assert node.generations[0].body == body

    run(test())


def test_a_client_that_leaves_cancels_its_request() -> None:
    async def test() -> None:
        node = ScriptedNode("a", stream(words=1000, gap_s=0.01))
        async with routing(node) as router:
            caller = await Caller.connect(router)
            await caller.send(chat(stream=True))
            await caller.reader.readuntil(b"w3 ")
            caller.close()
            await node.aborted.wait()
            await asyncio.sleep(0)
            assert router.counters.in_flight == 0
            assert [one.in_flight for one in router.registry.status(router.now_s())] == [0]

    run(test())


def test_a_client_that_does_not_read_holds_its_node_back() -> None:
    async def test() -> None:
        written = 0

        async def flood(node: ScriptedNode, request: object, writer: asyncio.StreamWriter) -> bool:
            nonlocal written
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            for _ in range(1000):
                writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
                written += 0x10000
                await writer.drain()
            writer.write(b"0\r\n\r\n")
            return True

        async with routing(ScriptedNode("a", flood), limits=Limits(buffered_bytes=64 * 1024)) as router:
            caller = await Caller.connect(router)
            await caller.send(chat(stream=True))
            before = -1
            while written != before:  # until nothing moves any more
                before = written
                await asyncio.sleep(0.2)
            assert written < 40 * 1024 * 1024  # of 64: what the sockets' buffers hold
            found = await caller.answer()
            assert len(found.body) == 1000 * 0x10000

    run(test())


def test_requests_of_one_text_meet_and_others_spread() -> None:
    async def test() -> None:
        nodes = [ScriptedNode(name, answer(ANSWER)) for name in "abc"]
        async with routing(*nodes) as router:
            for turn in range(4):
                for who in range(6):
                    text = f"user {who} " * 200 + "more " * 50 * turn
                    assert (await ask(router, chat(text))).status == 200
        homes = [
            {
                who
                for one in node.generations
                for who in range(6)
                if f"user {who} " in one.json["messages"][0]["content"]
            }
            for node in nodes
        ]
        assert sum(len(home) for home in homes) == 6  # each with one node
        assert all(homes)

    run(test())


def test_servers_of_unknown_speed_keep_nobody_waiting() -> None:
    """Whole answers tell nothing of the prefill: that was taken for a long one, and nodes got one at a time."""

    async def test() -> None:
        everybody_is_here = asyncio.Event()

        async def together(node: ScriptedNode, request: Received, writer: asyncio.StreamWriter) -> bool:
            if sum(len(one.generations) for one in nodes) == 16:
                everybody_is_here.set()
            await everybody_is_here.wait()
            return await answer(ANSWER)(node, request, writer)

        nodes = [ScriptedNode(name, together) for name in "ab"]
        async with routing(*nodes) as router:
            asked = [ask(router, chat(f"{who} " * 20_000)) for who in range(16)]
            assert [one.status for one in await asyncio.gather(*asked)] == [200] * 16

    run(test())


def test_a_short_prompt_is_not_kept_from_a_node_where_it_overtakes_long_ones() -> None:
    """Nine seconds are queued there, of which nothing goes before a short one; a long one waits in the router."""

    async def test() -> None:
        def says(queued_tokens: int, uptime_s: float) -> None:
            node.pages["/control/v1/report"] = msgspec.json.encode(
                node_reports.report(
                    node="a",
                    running=1,
                    waiting=4,
                    queued_tokens=queued_tokens,
                    prefill_tokens_per_s=10_000.0,
                    ahead=(wire.Ahead(512, 0),),
                    uptime_s=uptime_s,
                )
            )

        node = ScriptedNode("a", answer(ANSWER), ours=True)
        says(90_000, 100.0)
        async with routing(node, promise=Promise(ttft_ms=1000, tbt_ms=1000)) as router:
            await until(lambda: any(one.queued_tokens for one in router.registry.snapshot(router.now_s())))
            long = asyncio.create_task(ask(router, chat("long " * 2000)))
            assert (await ask(router, chat("short"))).status == 200
            assert [one.json["messages"][0]["content"] for one in node.generations] == ["short"]
            says(0, 101.0)
            assert (await long).status == 200

    run(test())


def test_new_prompts_with_a_common_beginning_spread() -> None:
    async def test() -> None:
        nodes = [ScriptedNode(name, answer(ANSWER)) for name in "abcd"]
        system = "You are a helpful assistant. " * 300
        async with routing(*nodes) as router:
            for who in range(120):
                assert (
                    await ask(router, chat(f"{system} I am {who}. " + f"{who * 7919} " * 2500))
                ).status == 200
        assert min(len(node.generations) for node in nodes) >= 10

    run(test())


def test_strangers_may_not_set_targets_and_trusted_ones_may_ask_why() -> None:
    async def test() -> None:
        node = ScriptedNode("a", answer(ANSWER))
        wishes = {
            "x-drift-priority": "5",
            "x-drift-slo-ttft-ms": "100",
            "x-drift-explain": "1",
            "x-drift-node": "b",
        }
        async with routing(node) as router:
            plain = await ask(router, chat(headers=wishes))
            trusted = await ask(router, chat(headers={**wishes, "x-drift-token": TOKEN}))
            wrong = await ask(router, chat(headers={"x-drift-token": TOKEN, "x-drift-priority": "high"}))
        assert "x-drift-decision" not in plain.headers
        assert '"scores"' in trusted.headers["x-drift-decision"]
        first, second = node.generations
        assert not [name for name in first.headers if name.startswith("x-drift-")]
        assert (second.headers["x-drift-priority"], second.headers["x-drift-slo-ttft-ms"]) == ("5", "100")
        assert "x-drift-node" not in second.headers
        assert (wrong.status, wrong.json["error"]["code"]) == (400, "invalid_header")

    run(test())


def posted(body: bytes) -> bytes:
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: router\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (b"GET /admin HTTP/1.1\r\nhost: r\r\n\r\n", 404, "not_found"),
        (b"DELETE /v1/models HTTP/1.1\r\nhost: r\r\n\r\n", 405, None),
        (b"GET /v1/chat/completions HTTP/1.1\r\nhost: r\r\n\r\n", 405, None),
        (
            chat().replace(b'"model"', b"'model'").replace(b"content-length: 72", b"content-length: 72"),
            400,
            "invalid_body",
        ),
        (chat("\udcff" if False else "x").replace(b'"x"', b'"\xff"'), 400, "invalid_body"),
        (chat(drift_resume={"token_ids": [1]}), 400, "invalid_body"),
        (posted(b'{"messages":' + b"[" * 5000 + b"]" * 5000 + b"}"), 400, "invalid_body"),
        (posted(b'{"messages":[],"x":' + b"[" * 5000 + b"]" * 5000 + b"}"), 400, "invalid_body"),
    ],
)
def test_what_is_wrong_is_said_in_the_shape_of_the_api(
    request_: bytes, status: int, code: str | None
) -> None:
    async def test() -> None:
        async with routing(ScriptedNode("a", answer(ANSWER))) as router:
            caller = await Caller.connect(router)
            found = await caller.ask(request_)
            assert found.status == status
            assert set(found.json["error"]) == {"message", "type", "param", "code"}
            assert found.json["error"]["code"] == code
            assert (await caller.ask(chat())).status == 200  # the connection is as good as before

    run(test())


def test_a_router_says_whether_it_can_serve() -> None:
    async def test() -> None:
        node = ScriptedNode("a", hang)
        async with routing(node) as router:
            assert (await ask(router, b"GET /readyz HTTP/1.1\r\nhost: r\r\n\r\n")).status == 200
        async with routing() as router:
            assert (await ask(router, b"GET /readyz HTTP/1.1\r\nhost: r\r\n\r\n")).status == 503
            found = await ask(router, chat())
            assert (found.status, found.headers["retry-after"]) == (503, "1")

    run(test())


def test_an_answer_without_a_body_has_no_length() -> None:
    async def test() -> None:
        node = ScriptedNode(
            "a", raw(b"HTTP/1.1 204 No Content\r\ncontent-length: 3\r\n\r\n", then_close=False)
        )
        async with routing(node) as router:
            caller = await Caller.connect(router)
            for _ in range(2):
                await caller.send(chat())
                head = await caller.reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 204 ")
                assert b"content-length" not in head

    run(test())
