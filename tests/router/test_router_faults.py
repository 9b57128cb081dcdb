"""How nodes and clients fail, over real sockets: always a defined answer, no token lost or said twice, no leak."""

from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from drift_router.keys import Key, Keys
from drift_router.nodes import known
from drift_router.options import Limits, Patience
from drift_router.worker import Worker
from router_process import ready, router
from running_router import PATIENT, Caller, ask, chat, routing, run
from scripted_node import WORDS, Behaviour, ScriptedNode, answer, drop, hang, raw, running, said, stream
from waiting import until

ANSWER = b'{"id":"chatcmpl-1","choices":[]}'
WHOLE = "".join(f"w{word} " for word in range(WORDS))
HASTY = Patience(
    connect_s=1.0, first_byte_s=1.0, idle_s=1.0, head_s=1.0, body_s=1.0, stalled_s=1.0, drain_s=1.0
)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


async def at_rest(router: Worker) -> None:
    """Nothing is left of any request."""

    def quiet() -> bool:
        status = router.registry.status(router.now_s())
        return not router.counters.in_flight and not any(one.in_flight for one in status)

    await until(quiet)
    for one in router.registry.status(router.now_s()):
        assert (one.in_flight, one.queued_tokens) == (0, 0)


FAILING: dict[str, Behaviour] = {
    "dies before the first byte": drop,
    "dies within its head": raw(b"HTTP/1.1 200 OK\r\ncontent-"),
    "dies at the first byte of the body": raw(HEAD + b"content-length: 100\r\n\r\n"),
    "dies within the body": raw(HEAD + b'content-length: 100\r\n\r\n{"id":'),
    "dies within a chunk": raw(HEAD + b"transfer-encoding: chunked\r\n\r\n20\r\nabc"),
    "dies between chunks": raw(HEAD + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"),
    "says something else": raw(b"220 smtp.example ESMTP\r\n"),
    "says nothing readable": raw(bytes(range(256)) * 10),
    "has no end of its head": raw(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20000),
    "has a bad chunk size": raw(HEAD + b"transfer-encoding: chunked\r\n\r\nxyz\r\n"),
    "states two lengths": raw(HEAD + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabcd"),
    "hangs": hang,
    "is full": answer(b'{"error":{}}', "429 Too Many Requests"),
    "is loading": answer(b'{"error":{}}', "503 Service Unavailable"),
    "is a gateway without a node": answer(b"<html>", "502 Bad Gateway"),
}


@pytest.mark.parametrize("name", FAILING)
def test_another_node_answers_for_one_that(name: str) -> None:
    async def test() -> None:
        nodes = [ScriptedNode("bad", FAILING[name]), ScriptedNode("good", answer(ANSWER))]
        async with routing(*nodes, policy="round-robin", patience=HASTY) as router:
            for _ in range(4):
                found = await ask(router, chat())
                assert (found.status, found.body) == (200, ANSWER)
            await at_rest(router)
        assert nodes[0].generations

    run(test())


@pytest.mark.parametrize("name", FAILING)
def test_without_another_node_the_client_is_told_that_it(name: str) -> None:
    async def test() -> None:
        async with routing(ScriptedNode("bad", FAILING[name]), patience=HASTY) as router:
            found = await ask(router, chat())
            assert found.status in (429, 502, 503, 504)
            if "gateway" not in name:  # that one's own answer is passed on
                assert "error" in found.json
            await at_rest(router)

    run(test())


@pytest.mark.parametrize("at", [0, 1, WORDS // 2, WORDS])
@pytest.mark.parametrize("how", ["break_after", "hang_after"])
def test_a_stream_goes_on_where_it_broke(at: int, how: str) -> None:
    async def test() -> None:
        async def first_breaks(node: ScriptedNode, request: object, writer: asyncio.StreamWriter) -> bool:
            broken.append(node)
            asked = node.generations[-1]
            if len(broken) == 1:
                return await stream(words=WORDS + 1, **{how: at})(node, asked, writer)
            return await stream()(node, asked, writer)

        broken: list[ScriptedNode] = []
        nodes = [ScriptedNode(name, first_breaks, ours=True) for name in "ab"]
        async with routing(*nodes, patience=HASTY) as router:
            found = await ask(router, chat(stream=True))
            assert found.status == 200
            assert said(found.body) == WHOLE
            assert found.body.endswith(b"data: [DONE]\n\n")
            assert found.body.count(b"[DONE]") == 1
            await at_rest(router)
        assert broken[0] is not broken[1]
        if at:
            resumed = broken[1].generations[-1].json["drift_resume"]
            assert resumed["token_ids"] == list(range(at))
            assert (resumed["id"], resumed["seed"]) == (f"chatcmpl-{broken[0].name}", 7)

    run(test())


def test_a_stream_leaves_a_node_that_can_not_be_reached_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where its network is cut: nothing is closed, and nothing comes."""
    monkeypatch.setattr(known, "LOST_S", 0.5)

    async def test() -> None:
        cut: list[ScriptedNode] = []

        async def behave(node: ScriptedNode, request: object, writer: asyncio.StreamWriter) -> bool:
            if node in cut:
                return await hang(node, node.received[-1], writer)
            if not cut:
                cut.append(node)
                node.pages.clear()
                return await stream(hang_after=5)(node, node.generations[-1], writer)
            return await stream()(node, node.generations[-1], writer)

        nodes = [ScriptedNode(name, behave, ours=True) for name in "ab"]
        async with routing(*nodes, patience=PATIENT) as router:
            found = await ask(router, chat(stream=True))
            assert said(found.body) == WHOLE
            await at_rest(router)

    run(test())


def test_a_stream_that_breaks_again_goes_on_again() -> None:
    async def test() -> None:
        count = 0

        async def breaks(node: ScriptedNode, request: object, writer: asyncio.StreamWriter) -> bool:
            nonlocal count
            count += 1
            ends = 4 * count if count < 3 else None
            return await stream(break_after=ends)(node, node.generations[-1], writer)

        nodes = [ScriptedNode(name, breaks, ours=True) for name in "abc"]
        async with routing(*nodes) as router:
            assert said((await ask(router, chat(stream=True))).body) == WHOLE
            await at_rest(router)

    run(test())


def test_a_stream_of_a_foreign_server_ends_with_an_error_that_clients_know() -> None:
    async def test() -> None:
        nodes = [ScriptedNode(name, stream(break_after=3)) for name in "ab"]
        async with routing(*nodes) as router:
            found = await ask(router, chat(stream=True))
            assert said(found.body) == "w0 w1 w2 "
            assert b'data: {"error":' in found.body
            assert found.body.endswith(b"data: [DONE]\n\n")
            await at_rest(router)

    run(test())


def test_a_long_answer_in_one_piece_that_breaks_can_be_told_from_a_whole_one() -> None:
    async def test() -> None:
        body = HEAD + b"content-length: 3000000\r\n\r\n" + b"x" * 2_000_000
        async with routing(ScriptedNode("a", raw(body))) as router:
            with pytest.raises(asyncio.IncompleteReadError):
                await ask(router, chat())
            await at_rest(router)

    run(test())


def test_a_kept_connection_that_a_node_closes_is_no_failure() -> None:
    async def test() -> None:
        async def once(node: ScriptedNode, request: object, writer: asyncio.StreamWriter) -> bool:
            await answer(ANSWER)(node, node.generations[-1], writer)
            return False  # without a word, after an answer that promised to stay

        node = ScriptedNode("a", once)
        async with routing(node) as router:
            caller = await Caller.connect(router)
            for _ in range(10):
                assert (await caller.ask(chat())).status == 200
            assert [one.circuit for one in router.registry.status(router.now_s())] == ["closed"]
            caller.close()

    run(test())


def test_words_that_nobody_asked_for_are_no_answer() -> None:
    async def test() -> None:
        async def talks_on(node: ScriptedNode, request: object, writer: asyncio.StreamWriter) -> bool:
            await answer(ANSWER)(node, node.generations[-1], writer)
            await raw(HEAD + b"content-length: 4\r\n\r\nevil")(node, node.generations[-1], writer)
            return True

        async with routing(ScriptedNode("a", talks_on)) as router:
            caller = await Caller.connect(router)
            for _ in range(5):
                assert (await caller.ask(chat())).body == ANSWER
            caller.close()

    run(test())


def test_a_node_that_comes_back_is_used_again() -> None:
    async def test() -> None:
        node = ScriptedNode("a", drop)
        async with routing(node) as router:
            for _ in range(4):
                assert (await ask(router, chat())).status in (502, 503)
            assert [one.circuit for one in router.registry.status(router.now_s())] == ["open"]
            node.behave = answer(ANSWER)
            await until(lambda: bool(router.registry.snapshot(router.now_s())))  # the circuit's first trial
            assert (await ask(router, chat())).status == 200

    run(test())


def test_a_node_that_claims_what_it_lacks_loses_its_pull() -> None:
    async def test() -> None:
        names = [4 * number for number in range(1, 33)]
        pages = ",".join(f"{index}:{name:x}" for index, name in enumerate(names))
        blocks = [[name, None] for name in names]
        state = json.dumps({"sequence": 0, "page_tokens": 16, "blocks": blocks}).encode()
        nodes = []
        for name, cached_tokens in (("liar", 0), ("honest", 512)):
            told = f"x-drift-pages: 16;512;{cached_tokens};{pages}\r\n"
            node = ScriptedNode(name, answer(ANSWER, extra=told), ours=True)
            node.pages["/kv/v1/state"] = state
            nodes.append(node)
        async with routing(*nodes) as router:
            for turn in range(60):  # of twenty texts, some meet the liar first
                text = f"what both say that they hold, {turn % 20} " * 50
                assert (await ask(router, chat(text))).status == 200
            trust = [one.trust for one in router.registry.status(router.now_s())]
            assert trust[0] < 0.95
            assert trust[1] > 0.99
            before = len(nodes[0].generations)
            for _ in range(10):
                assert (await ask(router, chat(text))).status == 200
            assert len(nodes[0].generations) == before

    run(test())


# clients


def test_a_client_that_closes_its_half_has_gone() -> None:
    async def test() -> None:
        node = ScriptedNode("a", stream(words=1000, gap_s=0.01))
        async with routing(node) as router:
            caller = await Caller.connect(router)
            await caller.send(chat(stream=True))
            await caller.reader.readuntil(b"w3 ")
            caller.writer.write_eof()
            await node.aborted.wait()
            await at_rest(router)

    run(test())


def test_a_slow_loris_is_shut_out() -> None:
    async def test() -> None:
        async with routing(ScriptedNode("a", answer(ANSWER)), patience=HASTY) as router:
            in_head, in_body = await Caller.connect(router), await Caller.connect(router)
            await in_head.send(b"POST /v1/chat/comp")
            await in_body.send(chat()[:-3])
            assert (await in_head.answer()).status == 408
            assert (await in_body.answer()).status == 408
            assert await in_head.closed()
            assert await in_body.closed()

    run(test())


def test_a_silent_connection_is_closed() -> None:
    async def test() -> None:
        patience = Patience(kept_alive_s=1.0)
        async with routing(ScriptedNode("a", answer(ANSWER)), patience=patience) as router:
            caller = await Caller.connect(router)
            assert await caller.closed()

    run(test())


def test_a_client_that_stops_reading_is_given_up() -> None:
    async def test() -> None:
        async def flood(node: ScriptedNode, request: object, writer: asyncio.StreamWriter) -> bool:
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            while True:
                writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
                await writer.drain()

        node = ScriptedNode("a", flood)
        async with routing(node, patience=HASTY, limits=Limits(buffered_bytes=65536)) as router:
            caller = await Caller.connect(router)
            await caller.send(chat(stream=True))
            await node.aborted.wait()
            await at_rest(router)

    run(test())


def test_a_body_of_a_hundred_megabytes_is_refused_before_it_comes() -> None:
    async def test() -> None:
        async with routing(ScriptedNode("a", answer(ANSWER))) as router:
            caller = await Caller.connect(router)
            head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: r\r\ncontent-length: 100000000\r\n\r\n"
            found = await caller.ask(head + b"x" * 1_000_000)
            assert (found.status, found.headers["connection"]) == (413, "close")
            caller.close()

    run(test())


def test_a_refusal_waits_for_the_answers_before_it() -> None:
    async def test() -> None:
        async with routing(ScriptedNode("a", stream(words=5, gap_s=0.01))) as router:
            caller = await Caller.connect(router)
            await caller.send(chat(stream=True) + b"GET / HTTP/1.1\r\nx y z\r\n\r\n")
            assert said((await caller.answer()).body) == "w0 w1 w2 w3 w4 "
            assert (await caller.answer()).status == 400

    run(test())


def test_no_more_is_held_than_allowed() -> None:
    async def test() -> None:
        limits = Limits(held_body_bytes=10_000)
        async with routing(ScriptedNode("a", hang), limits=limits) as router:
            callers = [await Caller.connect(router) for _ in range(3)]
            for caller in callers:
                await caller.send(chat("x" * 4000))
            assert (await callers[2].answer()).status == 503
            for caller in callers:
                caller.close()
            await at_rest(router)

    run(test())


def test_a_router_that_is_told_to_stop_finishes_first() -> None:
    async def test() -> None:
        async with routing(ScriptedNode("a", stream(words=20, gap_s=0.02)), patience=PATIENT) as router:
            busy, idle = await Caller.connect(router), await Caller.connect(router)
            await busy.send(chat(stream=True))
            await busy.reader.readuntil(b"w1 ")
            stopping = asyncio.ensure_future(router.serving.stop())
            assert await idle.closed()
            assert b"[DONE]" in await busy.reader.read()
            await stopping

    run(test())


# the machine


def test_a_router_without_file_descriptors_recovers() -> None:
    async def test() -> None:
        node = ScriptedNode("a", answer(ANSWER))
        async with running(node):
            with router(node.url, files=48) as process:
                await ready(process)
                crowd = [await asyncio.open_connection("127.0.0.1", process.port) for _ in range(100)]
                await asyncio.sleep(0.1)
                for _, writer in crowd:
                    writer.transport.abort()
                for _ in range(3):
                    async with asyncio.timeout(10):
                        caller = Caller(*await asyncio.open_connection("127.0.0.1", process.port))
                        assert (await caller.ask(chat())).status == 200
                        caller.close()

    run(test())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Files of a certificate for 127.0.0.1, and of its key."""
    folder = tmp_path_factory.mktemp("tls")
    files = str(folder / "cert.pem"), str(folder / "key.pem")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", files[1]]
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-days", "2"]
    made = ["openssl", "req", "-x509", *key, *name, "-out", files[0]]
    subprocess.run(made, check=True, capture_output=True, timeout=30)
    return files


def test_a_router_speaks_tls(certificate: tuple[str, str]) -> None:
    async def test() -> None:
        file, key = certificate
        node = ScriptedNode("a", stream(words=5))
        async with routing(node, tls_certificate=file, tls_key=key) as served:
            context = ssl.create_default_context(cafile=file)
            caller = Caller(*await asyncio.open_connection("127.0.0.1", served.port, ssl=context))
            for _ in range(2):
                assert said((await caller.ask(chat(stream=True))).body) == "w0 w1 w2 w3 w4 "
            caller.close()
            plain = await Caller.connect(served)
            await plain.send(chat())
            assert await plain.closed()

    run(test())


def test_an_unusable_certificate_is_said_in_one_line(tmp_path: Path) -> None:
    missing = str(tmp_path / "cert.pem")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "drift_router", "--options"),
            json.dumps({"port": 0, "tls_certificate": missing, "tls_key": missing}),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert missing in done.stderr


@pytest.mark.parametrize("hours", [-30, -1, 1, 30])
def test_a_clock_that_is_set_changes_nothing(hours: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams, health and limits are timed by a clock that nobody sets."""

    async def test() -> None:
        nodes = [ScriptedNode(name, stream(gap_s=0.02), ours=True) for name in "ab"]
        limited = {"name": "slow", "sha256": hashlib.sha256(b"key").hexdigest(), "requests_per_minute": 1}
        async with routing(*nodes, patience=HASTY) as router:
            under_way = asyncio.create_task(ask(router, chat(stream=True)))
            await until(lambda: router.counters.in_flight == 1)
            unset, step_s = time.time, hours * 3600.0
            monkeypatch.setattr(time, "time", lambda: unset() + step_s)
            monkeypatch.setattr(time, "time_ns", lambda: round((unset() + step_s) * 1e9))
            assert said((await under_way).body) == WHOLE
            for _ in range(4):
                assert said((await ask(router, chat(stream=True))).body) == WHOLE
            router.take_keys(Keys([msgspec.convert(limited, Key)]))
            bearer = {"authorization": "Bearer key"}
            assert (await ask(router, chat(stream=True, headers=bearer))).status == 200
            monkeypatch.undo()  # once more
            assert (await ask(router, chat(stream=True, headers=bearer))).status == 429, "no minute passed"
            await at_rest(router)
            for one in router.registry.status(router.now_s()):
                assert (one.health, one.circuit, one.problem) == ("healthy", "closed", "")
            assert not router.counters.node_failures

    run(test())
