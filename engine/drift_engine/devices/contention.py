"""How many threads a CPU lane computes with while other processes want its cores.

The threads of an OpenMP team meet at the end of every operator, and those that are there first spin. A thread that
has to wait for a core then holds up all of them, on a core that a spinning one may occupy: beside one busy process of
the lowest priority, two threads on two cores took 5.4 s for a decode step of a 117M model instead of 0.11, and one
thread 0.19 (AMD EPYC, torch 2.11 with libgomp, 2026-11). So a lane starts with one thread, takes more where cores are
idle, and gives them up as soon as they wait for cores. Results do not depend on the number of threads.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

WINDOW_S = 0.5
"""Between two looks, which cost 0.2 ms together."""

WAITING_THREADS = 0.25
"""Threads that wait for a core, on average, from which on there is one too many. An undisturbed node under load has
0.00 to 0.05, beside one busy process 0.5 to 1.5."""

_SPARE = 0.2
"""Of a core: what the system itself uses now and then does not keep a thread away."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Of this process and its cores, in seconds since some start. Differences are what counts."""

    wall_s: float
    waited_s: float  # summed over our threads: ready to run, without a core
    own_s: float  # summed over our threads: running
    idle_s: float  # summed over our cores: nobody running

    def since(self, before: Usage) -> Usage:
        return Usage(
            self.wall_s - before.wall_s,
            self.waited_s - before.waited_s,
            self.own_s - before.own_s,
            self.idle_s - before.idle_s,
        )


def threads_after(window: Usage, threads: int, most: int) -> int:
    """How many to compute with from now on: 1 to `most`."""
    waiting = window.waited_s / window.wall_s
    if waiting > WAITING_THREADS:
        return max(1, threads - math.ceil(waiting - WAITING_THREADS))
    ours = (window.own_s + window.idle_s) / window.wall_s  # cores that others leave to us
    return max(threads, min(most, math.floor(ours + _SPARE)))


class Meter(Protocol):
    def read(self) -> Usage: ...


class ProcMeter:
    """Linux's own books. Where a system keeps none, nobody ever waits and threads stay as they are."""

    def __init__(self) -> None:
        self._cores = sorted(os.sched_getaffinity(0))

    def read(self) -> Usage:
        cores = psutil.cpu_times(percpu=True)
        return Usage(
            time.monotonic(),
            _waited_s(),
            time.process_time(),
            sum(cores[index].idle for index in self._cores if index < len(cores)),
        )


def _waited_s() -> float:
    waited_ns = 0
    for task in Path("/proc/self/task").iterdir():
        try:
            # "time on a core, time waiting for one, slices"; Documentation/scheduler/sched-stats.rst
            waited_ns += int((task / "schedstat").read_bytes().split()[1])
        except (OSError, IndexError, ValueError):  # the thread ended, or the kernel does not count
            continue
    return waited_ns * 1e-9


class Threads:
    """The count of one lane; asked before each of its passes."""

    def __init__(self, most: int, meter: Meter, since: Usage | None = None) -> None:
        """`since` is what the meter said at some time before: then the first look tells something at once."""
        self.count = 1
        self.most = most
        self._meter = meter
        self._before = since or meter.read()

    def update(self, now_s: float) -> bool:
        """Looks if it is time to; whether the count changed."""
        if self.most == 1 or now_s - self._before.wall_s < WINDOW_S:
            return False
        usage = self._meter.read()
        previous, self.count = self.count, threads_after(usage.since(self._before), self.count, self.most)
        self._before = usage
        return self.count != previous
