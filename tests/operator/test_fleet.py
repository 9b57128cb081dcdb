"""Several processes that live together: stand-ins for nodes and for their router."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

import pytest

import processes
from drift_operator.errors import NodeDied
from drift_operator.local import children, members
from drift_operator.local.fleet import Fleet
from supervised import Listener, interrupt, launch

NAMES = ("a", "b")


def run(listener: Listener, *behaviours: str, router: str = "serve", drain_timeout_s: float = 5.0) -> None:
    async def scenario() -> None:
        nodes = {
            name: launch(behaviour, drain_timeout_s, name)
            for behaviour, name in zip(behaviours, NAMES, strict=True)
        }
        await Fleet(nodes, launch(router, drain_timeout_s, "router"), listener).run()

    asyncio.run(scenario())


def nothing_left(listener: Listener) -> None:
    assert all(processes.ends(pid) for pid in listener.pids("stand-in"))


def labels(listener: Listener, words: str) -> list[str]:
    """Whose lines have these words, in order."""
    return [label for label, line in listener.labelled if words in line]


def test_nodes_start_before_the_router_and_end_after_it() -> None:
    listener = Listener(interrupt)
    run(listener, "serve", "serve")
    assert listener.heard == ["ready", "stopping"]
    *first, last = labels(listener, "serves")
    assert (sorted(first), last) == (["a", "b"], "router")
    first_end, *ends = labels(listener, "got SIGTERM")
    assert (first_end, sorted(ends)) == ("router", ["a", "b"])
    nothing_left(listener)


def test_a_node_that_can_not_start_ends_all() -> None:
    listener = Listener()
    with pytest.raises(NodeDied, match=r"^node b ended with exit code 1 before it was ready$"):
        run(listener, "serve", "die-loading")
    assert listener.heard == []
    assert "router" not in labels(listener, "serves")
    nothing_left(listener)


def test_a_router_that_can_not_start_ends_all() -> None:
    listener = Listener()
    with pytest.raises(NodeDied, match="node router ended with exit code 1 before it was ready"):
        run(listener, "serve", "serve", router="die-loading")
    nothing_left(listener)


@pytest.mark.parametrize("victim", ["a", "router"])
def test_who_is_killed_is_started_again(monkeypatch: pytest.MonkeyPatch, victim: str) -> None:
    monkeypatch.setattr(members, "FIRST_PAUSE_S", 0.01)

    class Watcher(Listener):
        def log(self, label: str, line: str) -> None:
            super().log(label, line)
            if "serves again" in line:
                interrupt()

    def kill() -> None:
        (pid,) = [
            int(line.split()[1]) for label, line in listener.labelled if label == victim and "serves" in line
        ]
        os.kill(pid, signal.SIGKILL)

    listener = Watcher(kill)
    run(listener, "serve", "serve")
    assert f"node {victim} was killed by SIGKILL (out of memory?); starting it again" in listener.lines
    assert len(listener.pids("stand-in")) == 4
    assert listener.heard == ["ready", "stopping"]
    nothing_left(listener)


def test_second_signal_ends_deaf_ones_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "AT_ONCE_S", 0.1)

    def twice() -> None:
        loop = asyncio.get_running_loop()
        interrupt()
        loop.call_soon(interrupt)

    listener = Listener(twice)
    run(listener, "deaf", "serve", router="deaf", drain_timeout_s=600)
    assert listener.heard == ["ready", "stopping"]
    nothing_left(listener)


def test_a_deaf_router_is_killed_after_its_drain_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "STOP_MARGIN_S", 0.1)
    listener = Listener(interrupt)
    with pytest.raises(NodeDied, match=r"node router was killed by SIGKILL .* when it was asked to stop"):
        run(listener, "serve", "serve", router="deaf", drain_timeout_s=0.1)
    nothing_left(listener)


def test_a_signal_while_nodes_load_ends_all_in_order() -> None:
    class Hasty(Listener):
        def loading(self, label: str, progress: children.Loading) -> None:
            if not self.stages:
                interrupt()
            super().loading(label, progress)

    listener = Hasty()
    run(listener, "serve", "serve")
    assert listener.heard == ["stopping"]
    assert "router" not in labels(listener, "serves")
    nothing_left(listener)


def test_cancelled_fleet_leaves_nothing() -> None:
    listener = Listener()

    async def scenario() -> None:
        ready = asyncio.Event()
        listener._when_ready = ready.set
        nodes = {name: launch("serve", label=name) for name in NAMES}
        task = asyncio.create_task(Fleet(nodes, launch("serve", label="router"), listener).run())
        await asyncio.wait_for(ready.wait(), 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    nothing_left(listener)


class Growing(Listener):
    """Starts node c when all are ready, and does something on a line."""

    def __init__(self, fleet: Callable[[], Fleet], behaviour: str, on: str, then: Callable[[], None]) -> None:
        super().__init__(lambda: fleet().start("c", launch(behaviour, label="c")))
        self._on = on
        self._then = then

    def log(self, label: str, line: str) -> None:
        super().log(label, line)
        if self._on in line:
            self._then()


def grown(behaviour: str, on: str, then: Callable[[Fleet], None]) -> tuple[Fleet, Growing]:
    """A fleet of one node and a router that was told to have node c, too, and to end."""
    made: list[Fleet] = []
    listener = Growing(lambda: made[0], behaviour, on, lambda: then(made[0]))

    async def scenario() -> None:
        made.append(Fleet({"a": launch("serve", label="a")}, launch("serve", label="router"), listener))
        await made[0].run()

    asyncio.run(scenario())
    nothing_left(listener)
    return made[0], listener


def test_a_node_that_is_started_later_serves_until_it_is_stopped() -> None:
    def stop(fleet: Fleet) -> None:
        assert fleet.nodes["c"].serving
        fleet.changed = lambda: interrupt() if "c" not in fleet.nodes else None
        fleet.stop("c")

    fleet, listener = grown("serve", "node c serves now", stop)
    assert [*fleet.nodes] == ["a"]
    assert labels(listener, "got SIGTERM") == ["c", "router", "a"]
    assert listener.heard == ["ready", "stopping"]


def test_a_node_that_is_started_later_and_can_not_come_up_ends_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(members, "FIRST_PAUSE_S", 0.01)
    again = "node c ended with exit code 1; starting it again"
    fleet, listener = grown("die-loading", again, lambda fleet: interrupt())
    assert fleet.nodes["c"].deaths >= 1
    assert listener.heard == ["ready", "stopping"]


def test_pauses_double_up_to_a_bound() -> None:
    assert [members.pause_s(deaths) for deaths in (1, 2, 3, 6, 7, 8, 10_000)] == [0.5, 1, 2, 16, 30, 30, 30]
