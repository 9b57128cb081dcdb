"""CUDA's streams without a GPU: what is launched runs at once, or later in any order that streams and waits allow.

`HostGpu` with dice keeps launched work in its streams' queues. Whenever somebody looks at a mark, the dice choose
which stream goes on: only the order within a stream and waits for marks of others are kept, as on a GPU.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from drift_engine.devices import sharing
from drift_engine.devices.base import Clock, Event
from drift_engine.devices.cuda import CudaDevice
from drift_engine.devices.runner import Runner
from drift_engine.devices.streams import Mark
from drift_engine.errors import DeviceError
from fake_gpu_driver import FakeDriver

BURST = 3
"""At most so many pieces of work run when somebody looks."""


class HostGpu:
    """Without dice every piece of work runs when it is launched."""

    def __init__(self, dice: random.Random | None = None) -> None:
        self.dice = dice
        self.streams: list[HostStream] = []
        self.together = 0
        """How often a stream had work while another one worked."""

    def stream(self) -> HostStream:
        stream = HostStream(self)
        self.streams.append(stream)
        return stream

    def look(self) -> None:
        """Time passes: some work runs."""
        if self.dice is None:
            return
        for _ in range(self.dice.randrange(BURST + 1)):
            waiting = [stream for stream in self.streams if stream.queue]
            ready = [stream for stream in waiting if stream.ready()]
            assert ready or not waiting, "streams wait for each other"
            if not ready:
                return
            self.together += len(ready) > 1
            self.dice.choice(ready).step()


class HostMark:
    def __init__(self, stream: HostStream) -> None:
        self._stream = stream
        self.at_s: float | None = None  # None: not reached

    def done(self) -> bool:
        self._stream.gpu.look()
        return self.at_s is not None and not self._stream.held

    def since_s(self, earlier: HostMark) -> float:
        assert self.at_s is not None
        assert earlier.at_s is not None
        return self.at_s - earlier.at_s


@dataclass
class HostGraph:
    work: Callable[[], object]

    def replay(self) -> None:
        self.work()


class HostStream:
    """`held` keeps every mark from being done."""

    def __init__(self, gpu: HostGpu | None = None) -> None:
        self.gpu = gpu or HostGpu()
        self.held = False
        self.queue: deque[Callable[[], object] | HostMark] = deque()  # a mark of another stream: waits for it
        self.waits = 0

    @contextmanager
    def scope(self) -> Iterator[None]:
        yield

    def run(self, work: Callable[[], object]) -> None:
        self._launch(work)

    def mark(self) -> HostMark:
        mark = HostMark(self)

        def reach() -> None:
            mark.at_s = time.perf_counter()

        self._launch(reach)
        return mark

    def wait(self, mark: Mark) -> None:
        assert isinstance(mark, HostMark)
        self.waits += 1
        self._launch(mark)

    def capture(self, work: Callable[[], object]) -> HostGraph:
        work()
        return HostGraph(work)

    def ready(self) -> bool:
        head = self.queue[0]
        return not isinstance(head, HostMark) or head.at_s is not None

    def step(self) -> None:
        head = self.queue.popleft()
        if not isinstance(head, HostMark):
            head()

    def _launch(self, piece: Callable[[], object] | HostMark) -> None:
        self.queue.append(piece)
        while self.gpu.dice is None and self.queue:
            assert self.ready(), "a wait for what is not launched"
            self.step()


class HostStreams:
    """`sharing.Streams` over a fake driver; `priorities` False as on a GPU that has none."""

    def __init__(self, gpu: HostGpu, driver: FakeDriver, *, priorities: bool = True) -> None:
        self.gpu = gpu
        self.fake = driver
        self.priorities = priorities

    @property
    def sms(self) -> int:
        return self.fake.total

    def driver(self) -> FakeDriver:
        return self.fake

    def wrapped(self, handle: int) -> HostStream:
        assert handle in self.fake.contexts, handle
        return self.gpu.stream()

    def plain(self, *, urgent: bool = False) -> HostStream:
        if urgent and not self.priorities:
            raise DeviceError("no priorities here")
        return self.gpu.stream()


class HostDevice(CudaDevice):
    """Waits by the dice, not by the clock: a test repeats itself."""

    gpu: HostGpu

    def wait(self, events: Sequence[Event], timeout_s: float) -> bool:
        if self.gpu.dice is None:
            return super().wait(events, timeout_s)
        return any(event.done() for _ in range(self.gpu.dice.randrange(9)) for event in events)


def open_device(
    runner: Runner,
    clock: Clock,
    share: sharing.Share = sharing.alone,
    *,
    max_running: int = 8,
    max_context_tokens: int | None = None,
    graphs: bool = True,
    gpu: HostGpu | None = None,
    stream: HostStream | None = None,
    driver: FakeDriver | None = None,
) -> HostDevice:
    """The CUDA device's lanes and graphs over the CPU's kernels; `stream` is that of the whole device."""
    gpu = gpu or HostGpu()
    streams = HostStreams(gpu, driver or FakeDriver(4, 1))
    device = HostDevice(
        runner,
        clock,
        stream or gpu.stream(),
        share(streams),
        sms=streams.sms,
        max_running=max_running,
        max_context_tokens=max_context_tokens or runner.model.max_context_tokens,
        graphs=graphs,
    )
    device.gpu = gpu
    return device
