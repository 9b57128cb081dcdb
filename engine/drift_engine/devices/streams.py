"""The seam between a lane and CUDA: a stream to launch on, marks in it, and work captured to be repeated.

`CudaStream` and `CudaStreams` are the only code here that calls torch.cuda. They wrap any stream that torch knows, so
that a green context's stream takes the place of a plain one without a change to the lane.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, Self

import torch

from drift_engine.errors import DeviceError
from drift_kernels.green_contexts import CudaDriver


class Mark(Protocol):
    """A place in a stream."""

    def done(self) -> bool:
        """Whether everything launched before it has ended. Never blocks."""

    def since_s(self, earlier: Self) -> float:
        """Time of the device between two marks that are done."""


class Graph(Protocol):
    """Captured work."""

    def replay(self) -> None: ...


class Stream(Protocol):
    """Runs what is launched inside `scope`, in order."""

    def scope(self) -> AbstractContextManager[None]:
        """Memory that is allocated inside belongs to the stream: its next launches may have it once it is freed."""

    def run(self, work: Callable[[], object]) -> None:
        """Launches `work`. Inside `scope`. A GPU's kernels are launched here and now, and nothing waits for them."""

    def mark(self) -> Mark: ...

    def wait(self, mark: Mark) -> None:
        """What is launched from here on runs after a mark of another stream. The host does not wait."""

    def capture(self, work: Callable[[], object]) -> Graph:
        """Runs `work` once and returns a graph that repeats it on the same tensors. Inside `scope`; may block."""


class CudaMark:
    def __init__(self, event: torch.cuda.Event) -> None:
        self.event = event

    def done(self) -> bool:
        with translated("waiting for a pass"):
            return bool(self.event.query())  # type: ignore[no-untyped-call]

    def since_s(self, earlier: CudaMark) -> float:
        with translated("timing a pass"):
            return float(earlier.event.elapsed_time(self.event)) / 1e3


class CudaStream:
    """A stream and the pool that its graphs' intermediates share: one of them runs at a time.

    torch keeps memory and cuBLAS workspaces by stream, so that lanes share neither.
    """

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream
        self._pool = torch.cuda.graph_pool_handle()

    @contextmanager
    def scope(self) -> Iterator[None]:
        with translated("launching a pass"), torch.cuda.stream(self._stream):
            yield

    def run(self, work: Callable[[], object]) -> None:
        work()

    def mark(self) -> CudaMark:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(self._stream)
        return CudaMark(event)

    def wait(self, mark: Mark) -> None:
        assert isinstance(mark, CudaMark)
        self._stream.wait_event(mark.event)

    def capture(self, work: Callable[[], object]) -> Graph:
        # The first run is the pass itself and the warm-up: it compiles kernels and makes cuBLAS's workspace, neither
        # of which may happen under capture.
        work()
        graph = torch.cuda.CUDAGraph()
        # Waits for the whole device, once per graph. `thread_local`: another thread's allocation may not spoil it.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            work()
        return graph


class CudaStreams:
    """The streams of one GPU: `sharing.Streams`."""

    def __init__(self, gpu: torch.device) -> None:
        index = torch.cuda.current_device() if gpu.index is None else gpu.index
        self._gpu = torch.device("cuda", index)

    @property
    def sms(self) -> int:
        return int(torch.cuda.get_device_properties(self._gpu).multi_processor_count)

    def driver(self) -> CudaDriver:
        """Raises DriverError."""
        return CudaDriver(self._gpu.index)

    def wrapped(self, handle: int) -> CudaStream:
        """Of a stream that belongs to somebody else, who destroys it."""
        return CudaStream(torch.cuda.ExternalStream(handle, device=self._gpu))  # type: ignore[no-untyped-call]

    def plain(self, *, urgent: bool = False) -> CudaStream:
        """On the whole device. `urgent` raises DeviceError where the GPU knows no priorities."""
        priority = 0
        if urgent:
            least, priority = torch.cuda.Stream.priority_range()  # type: ignore[call-arg]
            if priority >= least:
                raise DeviceError("the GPU knows no priorities of streams")
        return CudaStream(torch.cuda.Stream(self._gpu, priority=priority))  # type: ignore[no-untyped-call]


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """torch's, the driver's and Triton's errors as DeviceError, with CUDA's error code where they tell it."""
    try:
        yield
    except RuntimeError as error:
        code = getattr(error, "error_code", None)
        reason = str(error).strip().partition("\n")[0]
        raise DeviceError(f"the GPU failed while {doing}: {reason}", code) from error
