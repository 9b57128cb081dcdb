"""The life of a node process as its supervisor sees it, with a stand-in that needs no engine."""

from __future__ import annotations

import asyncio
import os
import signal
import socket

import pytest

import processes
from drift_operator.errors import LocalError, NodeDied
from drift_operator.local import children, ports
from drift_operator.local.children import Launch, Loading
from drift_operator.local.fleet import Fleet
from supervised import Listener, interrupt, launch


async def run(node: Launch, listener: Listener) -> None:
    """One node without a router."""
    await Fleet({"node": node}, None, listener).run()


def test_node_loads_serves_and_stops_when_asked() -> None:
    listener = Listener(interrupt)
    asyncio.run(run(launch("serve"), listener))
    assert listener.heard == ["ready", "stopping"]
    told = [stage for stage in listener.stages if stage.stage]
    assert told == [
        Loading("reading weights", 1, 4),
        Loading("reading weights", 3, 4),
        Loading("warming up", 0, 0),
    ]
    assert "stand-in got SIGTERM" in listener.lines
    assert processes.ends(listener.pid("stand-in"))


def test_node_that_dies_while_it_loads() -> None:
    listener = Listener()
    with pytest.raises(NodeDied, match="ended with exit code 1 before it was ready"):
        asyncio.run(run(launch("die-loading"), listener))
    assert listener.lines == ["stand-in: no weights in embedded://none"]
    assert listener.heard == []


def test_node_that_dies_while_it_serves() -> None:
    listener = Listener(lambda: os.kill(listener.pid("stand-in"), signal.SIGUSR1))
    with pytest.raises(NodeDied, match="ended with exit code 7 while it served"):
        asyncio.run(run(launch("serve"), listener))
    assert "ran out of luck" in listener.lines


def test_second_signal_ends_a_deaf_node_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "AT_ONCE_S", 0.1)

    def twice() -> None:
        loop = asyncio.get_running_loop()
        interrupt()
        loop.call_soon(interrupt)

    listener = Listener(twice)
    asyncio.run(run(launch("deaf", drain_timeout_s=600), listener))
    assert listener.heard == ["ready", "stopping"]


def test_deaf_node_is_killed_after_its_drain_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "STOP_MARGIN_S", 0.1)
    with pytest.raises(NodeDied, match=r"was killed by SIGKILL .* when it was asked to stop"):
        asyncio.run(run(launch("deaf", drain_timeout_s=0.1), Listener(interrupt)))


def test_what_the_node_started_goes_with_it() -> None:
    listener = Listener(interrupt)
    asyncio.run(run(launch("fork"), listener))
    assert processes.ends(listener.pid("child"))


def test_cancelled_supervisor_leaves_nothing() -> None:
    listener = Listener()

    async def scenario() -> None:
        ready = asyncio.Event()
        listener._when_ready = ready.set
        task = asyncio.create_task(run(launch("fork"), listener))
        await asyncio.wait_for(ready.wait(), 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert processes.ends(listener.pid("child"))
    assert processes.ends(listener.pid("stand-in"))


def test_node_without_progress_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "STALL_TIMEOUT_S", 0.0)
    with pytest.raises(NodeDied, match="made no progress"):
        asyncio.run(run(launch("serve"), Listener()))


def test_program_that_is_not_there() -> None:
    absent = Launch(("/absent/program",), {}, "127.0.0.1", ports.free("127.0.0.1")[0], 1.0)
    with pytest.raises(NodeDied, match="before it was ready"):
        asyncio.run(run(absent, Listener()))


def test_port_in_use_is_said_before_anything_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(
            LocalError, match=f"127.0.0.1:{port} is in use by another program; choose another with --port"
        ):
            ports.check("127.0.0.1", port)


def test_address_that_is_not_ours() -> None:
    with pytest.raises(LocalError, match="can't be listened on"):
        ports.check("203.0.113.1", 8000)


def test_node_on_every_address_is_asked_at_home() -> None:
    assert children.reachable("0.0.0.0") == "127.0.0.1"
    assert children.reachable("::") == "::1"
    assert children.reachable("10.0.0.1") == "10.0.0.1"


@pytest.mark.parametrize(
    ("code", "phrase"),
    [
        (3, "ended with exit code 3"),
        (-signal.SIGSEGV, "was killed by SIGSEGV"),
        (-signal.SIGKILL, "was killed by SIGKILL (out of memory?)"),
    ],
)
def test_endings_in_words(code: int, phrase: str) -> None:
    assert children.ending(code) == phrase
