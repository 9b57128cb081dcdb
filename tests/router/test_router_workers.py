"""Several worker processes behind one port: who dies, who stays, and what they know of each other."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import processes
import waiting
from drift_engine.errors import OptionsError
from drift_router import options
from drift_router.options import Limits, Patience, RouterOptions
from drift_router.workers.backoff import MOST_S, Backoff
from drift_router.workers.crew import private_folder
from http_calls import call, get, metric
from router_process import TOKEN, RouterProcess, router
from running_router import Answer, Caller, chat, run
from scripted_node import ScriptedNode, answer, running, said, stream

ANSWER = b'{"choices":[]}'
TRUSTED = {"x-drift-token": TOKEN, "x-drift-explain": "1"}
DEADLINE_S = 60.0
MANY = 64
"""Connections: that all of them meet one of two workers has a chance of 2 ** -63."""


@contextlib.asynccontextmanager
async def served(*nodes: ScriptedNode, **asked: Any) -> AsyncIterator[RouterProcess]:
    """Two workers, if nothing else is asked, and every node is healthy."""
    async with running(*nodes):
        urls = [f"{node.url},{node.url}" if node.ours else node.url for node in nodes]
        with contextlib.ExitStack() as stack:
            process = await asyncio.to_thread(stack.enter_context, router(*urls, **{"workers": 2, **asked}))
            await until(lambda: [node["eligible"] for node in shown(process)] == [True] * len(nodes))
            try:
                yield process
            finally:
                for caller in _open:
                    caller.writer.transport.abort()
                _open.clear()
                await asyncio.sleep(0)


_open: list[Caller] = []
"""Closed with the router at the latest."""


async def connect(process: RouterProcess) -> Caller:
    caller = Caller(*await asyncio.open_connection("127.0.0.1", process.port))
    _open.append(caller)
    return caller


async def until(condition: Callable[[], bool]) -> None:
    """What blocks while it asks."""
    await waiting.until(lambda: asyncio.to_thread(condition), look_s=0.05)


def shown(process: RouterProcess) -> list[Any]:
    found: list[Any] = get(process.admin_url, "/control/v1/nodes", {"x-drift-token": TOKEN}).json["nodes"]
    return found


def workers(process: RouterProcess) -> list[int]:
    return [child.pid for child in psutil.Process(process.process.pid).children(recursive=True)]


async def both(process: RouterProcess) -> dict[int, list[Caller]]:
    """Many connections, by the worker that has them."""
    callers = [await connect(process) for _ in range(MANY)]
    for caller in callers:
        await caller.ask(b"GET /health HTTP/1.1\r\nhost: r\r\n\r\n")  # it is accepted
    found: dict[int, list[Caller]] = {}
    for pid in workers(process):
        peers = {one.raddr.port for one in psutil.Process(pid).net_connections("tcp") if one.raddr}
        found[pid] = [one for one in callers if one.writer.get_extra_info("sockname")[1] in peers]
    assert all(found.values())
    assert sum(map(len, found.values())) == MANY
    return found


def decision(found: Answer) -> Any:
    assert found.status == 200
    return json.loads(found.headers["x-drift-decision"])


def test_workers_know_what_the_others_sent_and_take_the_same_nodes() -> None:
    async def test() -> None:
        nodes = [ScriptedNode(str(place), answer(ANSWER), ours=place > 0) for place in range(3)]
        async with served(*nodes, session_header="x-session") as process:
            (first, *_), (second, *_) = (await both(process)).values()
            homes = set()
            for who in range(6):
                text = f"user {who} " * 400
                there = decision(await first.ask(chat(text, headers=TRUSTED)))
                await asyncio.sleep(0.2)
                here = decision(await second.ask(chat(text + "more " * 20, headers=TRUSTED)))
                assert here["node"] == there["node"]
                assert here["matched_tokens"] > 0.8 * there["uncached_tokens"]
                homes.add(here["node"])
            assert len(homes) == 3
            report = await asyncio.to_thread(get, process.admin_url, "/control/v1/report", TRUSTED)
            assert (report.json["workers"], report.json["in_flight"]) == (2, 0)
            name = "drift_router_requests_total"
            assert await asyncio.to_thread(metric, process.admin_url, name, code="200") == 12

            listed = [
                {"name": f"node-{place}", "url": node.url, "draining": place != 2}
                | ({"control_url": node.url} if node.ours else {})
                for place, node in enumerate(nodes)
            ]
            put = {"epoch": 2, "nodes": listed}
            told = await asyncio.to_thread(call, process.admin_url, "PUT", "/control/v1/nodes", put, TRUSTED)
            assert told.status == 200
            for caller in (first, second):
                assert decision(await caller.ask(chat("hi", headers=TRUSTED)))["node"] == "node-2"
            for wrong, status in (({**put, "epoch": 1}, 409), ({"epoch": 3, "nodes": [listed[0]] * 2}, 400)):
                told = await asyncio.to_thread(
                    call, process.admin_url, "PUT", "/control/v1/nodes", wrong, TRUSTED
                )
                assert told.status == status
            for caller in (first, second):
                assert decision(await caller.ask(chat("hi", headers=TRUSTED)))["node"] == "node-2"

    run(test(), DEADLINE_S)


def test_a_killed_worker_takes_only_its_own_connections_with_it(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(json.dumps({"keys": [{"name": "k", "sha256": hashlib.sha256(b"secret").hexdigest()}]}))
    asked = chat(stream=True, headers={"authorization": "Bearer secret"})

    async def test() -> None:
        node = ScriptedNode("a", stream(words=20, gap_s=0.05))
        async with served(node, keys_file=str(keys)) as process:
            found = await both(process)
            (dead, lost), (left, kept) = found.items()
            for caller in (lost[0], kept[0]):
                assert said((await caller.ask(asked)).body)
            counted = await asyncio.to_thread(total, process)
            assert counted == 2

            await lost[0].send(asked)
            await kept[0].send(asked)
            await asyncio.gather(*[one.reader.readuntil(b"w1 ") for one in (lost[0], kept[0])])
            os.kill(dead, signal.SIGKILL)
            assert await asyncio.to_thread(processes.ends, dead)
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await lost[0].reader.readuntil(b"[DONE]")
            served_all = 0
            while len(workers(process)) < 2 or served_all < 40:  # before, while and after there is another
                caller = await connect(process)
                assert (await caller.ask(b"GET /health HTTP/1.1\r\nhost: r\r\n\r\n")).status == 200
                caller.close()
                served_all += 1
                assert await asyncio.to_thread(total, process) >= counted
            assert b"[DONE]" in await kept[0].reader.readuntil(b"[DONE]")
            await until(lambda: metric(process.admin_url, "drift_router_workers") == 2)
            assert (
                await asyncio.to_thread(metric, process.admin_url, "drift_router_worker_restarts_total") == 1
            )
            again = await both(process)
            assert set(again) >= {left}
            assert dead not in again
            for callers in again.values():
                assert (await callers[0].ask(asked)).status == 200
                assert (await callers[0].ask(chat())).status == 401
            assert await asyncio.to_thread(total, process) >= counted + 3

    run(test(), DEADLINE_S)


def total(process: RouterProcess) -> float:
    return metric(process.admin_url, "drift_router_requests_total", code="200")


def test_what_is_in_flight_ends_before_the_workers_do() -> None:
    async def test() -> None:
        async with served(ScriptedNode("a", stream(words=30, gap_s=0.05))) as process:
            pids, found = workers(process), await both(process)
            busy = [callers[0] for callers in found.values()]
            for caller in busy:
                await caller.send(chat(stream=True))
                await caller.reader.readuntil(b"w1 ")
            stopping = asyncio.ensure_future(asyncio.to_thread(process.stop))
            for caller in busy:
                assert b"[DONE]" in await caller.reader.read()
            assert await stopping == 0
            assert all([await asyncio.to_thread(processes.ends, pid) for pid in pids])

    run(test(), DEADLINE_S)


def modes(folder: Path) -> list[int]:
    return [one.stat().st_mode & 0o777 for one in folder.iterdir()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_its_parent(number: signal.Signals, tmp_path: Path, monkeypatch: Any) -> None:
    """Told a second time it does not wait for what is in flight; killed, nobody tells the workers."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    async def test() -> None:
        hasty = Patience(drain_s=60.0 if number is signal.SIGTERM else 1.0)
        async with served(ScriptedNode("a", stream(hang_after=2)), patience=hasty) as process:
            pids, found = workers(process), await both(process)
            for callers in found.values():
                await callers[0].send(chat(stream=True))
                await callers[0].reader.readuntil(b"w1 ")
            assert modes(tmp_path) == [0o700]
            process.process.send_signal(number)
            if number is signal.SIGTERM:
                assert await found[pids[0]][1].closed()  # it drains
                process.process.send_signal(number)
            assert all([await asyncio.to_thread(processes.ends, pid) for pid in pids])
            status = await asyncio.to_thread(process.process.wait, 20)
            assert status == (0 if number is signal.SIGTERM else -number)
            assert modes(tmp_path) == []

    run(test(), DEADLINE_S)


@pytest.mark.parametrize("what", ["port", "certificate", "keys"])
def test_a_router_that_can_not_begin_says_why(what: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # as another router's
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1] if what == "port" else 0
        missing = str(tmp_path / "missing")
        asked = RouterOptions(
            port=port,
            nodes=("http://127.0.0.1:1",),
            workers=2,
            tls_certificate=missing if what == "certificate" else None,
            keys_file=missing if what == "keys" else None,
        )
        done = subprocess.run(
            [sys.executable, "-m", "drift_router", "--options", options.dump(asked)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    told = {"port": f":{port}: Address already in use", "certificate": "worker ", "keys": missing}[what]
    assert told in done.stderr
    assert done.stdout == ""


def promised(process: RouterProcess, word: dict[str, float]) -> int:
    return call(process.admin_url, "PUT", "/control/v1/promise", word, TRUSTED).status


def report_of(process: RouterProcess) -> Any:
    return get(process.admin_url, "/control/v1/report", TRUSTED).json


def test_a_new_promise_reaches_all_workers_and_those_that_come_after() -> None:
    async def test() -> None:
        async with served(ScriptedNode("a", stream(words=3), ours=True)) as process:
            for callers in (await both(process)).values():
                await callers[0].ask(chat(stream=True))
            before = await asyncio.to_thread(report_of, process)
            assert (before["promise"]["epoch"], before["totals"]["requests"]) == (0, 2)
            word = {"epoch": 5, "ttft_ms": 1234.0, "ttft_per_token_ms": 0.0, "tbt_ms": 56.0}
            assert await asyncio.to_thread(promised, process, word) == 200
            assert await asyncio.to_thread(promised, process, {**word, "epoch": 4}) == 409
            after = await asyncio.to_thread(report_of, process)
            assert after["promise"] == word
            assert after["totals"]["requests"] == 0
            assert 1.234 in after["totals"]["ttft"]["edges"]
            assert after["totals"]["uptime_s"] < before["totals"]["uptime_s"]

            dead = workers(process)[0]
            os.kill(dead, signal.SIGKILL)
            await until(lambda: report_of(process)["worker_restarts"] == 1 and len(workers(process)) == 2)
            await until(lambda: report_of(process)["workers"] == 2)
            await until(lambda: all(node["eligible"] for node in shown(process)))
            for callers in (await both(process)).values():
                await callers[0].ask(chat(stream=True))
            later = await asyncio.to_thread(report_of, process)
            assert (later["totals"]["requests"], later["promise"]) == (2, word)
            assert sum(later["totals"]["ttft"]["counts"]) == 2

            assert await asyncio.to_thread(promised, process, {**word, "epoch": 6}) == 200
            again = await asyncio.to_thread(report_of, process)
            assert (again["promise"]["epoch"], again["totals"]["requests"]) == (6, 2)  # it is the same one

    run(test(), DEADLINE_S)


@pytest.mark.parametrize("count", [1, 2])
def test_a_router_that_leaves_is_not_ready_and_serves_on(count: int) -> None:
    async def test() -> None:
        node = ScriptedNode("a", answer(ANSWER))
        async with served(node, workers=count, patience=Patience(leave_s=600)) as process:
            kept = await connect(process)
            assert (await kept.ask(chat())).headers.get("connection") is None
            process.process.send_signal(signal.SIGTERM)
            await until(lambda: get(process.admin_url, "/readyz").status == 503)
            await until(lambda: get(process.url, "/readyz").status == 503)
            assert (await asyncio.to_thread(get, process.admin_url, "/healthz")).status == 200
            last = await kept.ask(chat())
            assert (last.status, last.headers["connection"]) == (200, "close")
            assert (await (await connect(process)).ask(chat())).status == 200
            assert await asyncio.to_thread(process.stop) == 0  # a second word: at once

    run(test(), DEADLINE_S)


def test_a_router_that_has_left_ends_by_itself() -> None:
    async def test() -> None:
        async with served(ScriptedNode("a", answer(ANSWER)), patience=Patience(leave_s=0.2)) as process:
            assert await asyncio.to_thread(process.stop) == 0

    run(test(), DEADLINE_S)


def test_a_router_that_is_to_watch_a_service_outside_of_a_pod_says_what_is_missing() -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("KUBERNETES_")}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "drift_router",
            "--options",
            '{"port": 0, "nodes_service": "prod/chat-nodes"}',
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environ,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: nodes_service: KUBERNETES_SERVICE_HOST is not set")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"nodes_service": "chat-nodes"}, "nodes_service: 'chat-nodes' is not of the form NAMESPACE/NAME"),
        ({"nodes_service": "a/b", "nodes_file": "f"}, "nodes_service: not beside nodes_file"),
        ({"keys_dir": "d", "keys_file": "f"}, "keys_dir: not beside keys_file"),
    ],
)
def test_options_that_contradict_are_refused(asked: dict[str, str], message: str) -> None:
    with pytest.raises(OptionsError) as caught:
        options.parse(json.dumps(asked))
    assert message in str(caught.value)


def test_workers_talk_also_where_nothing_but_shared_memory_can_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/none")
    folder = Path(private_folder())
    assert (folder.parent, folder.stat().st_mode & 0o777) == (Path("/dev/shm"), 0o700)
    folder.rmdir()


def test_a_worker_that_dies_again_and_again_is_started_ever_more_seldom() -> None:
    backoff = Backoff()
    assert [backoff.ended(0.5) for _ in range(8)] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    assert [backoff.ended(lived_s) for lived_s in (MOST_S, 0.5)] == [0.2, 0.4]


def test_bounds_are_shared_out_and_files_are_read_by_the_parent() -> None:
    limits = Limits(connections=10, held_body_bytes=9_000, body_bytes=4_000)
    asked = RouterOptions(workers=4, queue=6, limits=limits, keys_file="keys", nodes_file="nodes")
    watching = RouterOptions(workers=4, keys_dir="keys", nodes_service="prod/nodes")
    part = options.for_worker(asked, 8000)
    assert (part.port, part.queue, part.limits.connections) == (8000, 2, 3)
    assert part.limits.held_body_bytes == 4_000  # one of the largest bodies fits
    assert (part.keys_file, part.nodes_file, part.nodes) == (None, None, ())
    part = options.for_worker(watching, 8000)
    assert (part.keys_dir, part.nodes_service) == (None, None)
    assert options.for_worker(RouterOptions(workers=2, queue=0), 8000).queue == 0
