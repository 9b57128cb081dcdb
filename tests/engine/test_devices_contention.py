"""Threads given up to other processes and taken back."""

from __future__ import annotations

import pytest

from drift_engine.devices import contention
from drift_engine.devices.contention import Threads, Usage, threads_after


def window(waiting: float, own: float, idle: float) -> Usage:
    """Of two seconds, from shares of them."""
    return Usage(2.0, 2 * waiting, 2 * own, 2 * idle)


@pytest.mark.parametrize(
    ("usage", "threads", "most", "expected"),
    [
        pytest.param(window(0.05, 2.0, 0.0), 2, 2, 2, id="alone and busy"),
        pytest.param(window(0.0, 0.0, 2.0), 1, 2, 2, id="alone and idle"),
        pytest.param(window(0.0, 1.0, 1.0), 1, 2, 2, id="the other process has ended"),
        pytest.param(window(1.0, 1.0, 0.0), 2, 2, 1, id="two threads share a core"),
        pytest.param(window(0.05, 1.0, 0.0), 1, 2, 1, id="the other process goes on"),
        pytest.param(window(0.0, 0.0, 1.0), 1, 2, 1, id="it goes on while the lane is idle"),
        pytest.param(window(3.0, 1.0, 0.0), 1, 1, 1, id="never none"),
        pytest.param(window(0.6, 7.4, 0.0), 8, 8, 7, id="one process beside eight threads"),
        pytest.param(window(3.6, 4.4, 0.0), 8, 8, 4, id="four processes beside eight threads"),
        pytest.param(window(0.0, 4.0, 2.9), 4, 8, 7, id="one of them is left"),
        pytest.param(window(0.0, 2.0, 30.0), 2, 4, 4, id="never more than asked for"),
    ],
)
def test_threads_after(usage: Usage, threads: int, most: int, expected: int) -> None:
    assert threads_after(usage, threads, most) == expected


class Script:
    """A meter that reads what the test wrote."""

    def __init__(self) -> None:
        self.usage = Usage(10.0, 0.0, 0.0, 0.0)

    def read(self) -> Usage:
        return self.usage


def test_starts_with_one_and_follows_the_meter() -> None:
    meter = Script()
    threads = Threads(2, meter)
    assert threads.count == 1
    meter.usage = Usage(10.4, 0.0, 0.2, 0.6)
    assert not threads.update(10.4)  # too soon to tell
    meter.usage = Usage(11.0, 0.0, 0.5, 1.5)
    assert threads.update(11.0)
    assert threads.count == 2
    meter.usage = Usage(12.0, 0.9, 1.5, 1.5)
    assert threads.update(12.0)
    assert threads.count == 1


def test_one_thread_needs_no_look() -> None:
    class Blind(Script):
        def read(self) -> Usage:
            assert not hasattr(self, "read_once"), "read again"
            self.read_once = True
            return self.usage

    threads = Threads(1, Blind())
    assert not threads.update(1000.0)


def test_the_systems_books_are_read() -> None:
    meter = contention.ProcMeter()
    before = meter.read()
    while meter.read().wall_s - before.wall_s < 0.1:  # busy on purpose
        pass
    spent = meter.read().since(before)
    assert 0 < spent.own_s <= spent.wall_s * 1.1
    assert spent.waited_s >= 0
    assert spent.idle_s >= 0
