"""A stream without a GPU: work runs when it is launched, a "graph" runs its work again, marks wait for the test."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from drift_engine.devices.base import Clock
from drift_engine.devices.cuda import CudaDevice, CudaLane
from drift_engine.devices.graphs import DecodeGraphs
from drift_engine.devices.runner import Runner


class HostMark:
    def __init__(self, stream: HostStream) -> None:
        self._stream = stream
        self._at_s = time.perf_counter()

    def done(self) -> bool:
        return not self._stream.held

    def since_s(self, earlier: HostMark) -> float:
        assert self.done()
        return self._at_s - earlier._at_s


@dataclass
class HostGraph:
    replay: Callable[[], None]


class HostStream:
    """`held` keeps every mark from being done."""

    def __init__(self) -> None:
        self.held = False

    @contextmanager
    def scope(self) -> Iterator[None]:
        yield

    def mark(self) -> HostMark:
        return HostMark(self)

    def capture(self, work: Callable[[], None]) -> HostGraph:
        work()
        return HostGraph(work)


def whole_device(
    runner: Runner,
    clock: Clock,
    *,
    max_running: int = 8,
    max_context_tokens: int | None = None,
    graphs: bool = True,
    stream: HostStream | None = None,
) -> CudaDevice:
    """The CUDA device's lanes and graphs over the CPU's kernels."""
    stream = stream or HostStream()
    decode = None
    if graphs:
        decode = DecodeGraphs(
            runner,
            stream.capture,
            max_rows=max_running,
            max_context_tokens=max_context_tokens or runner.model.max_context_tokens,
            lane_sms=1,
        )
    return CudaDevice(runner, clock, CudaLane("whole", runner, stream, clock, sms=1, graphs=decode))
