"""The seam between a lane and CUDA: a stream to launch on, marks in it, and work captured to be repeated.

`CudaStream` is the only code here that calls torch.cuda. It wraps any stream that torch knows, so that a green
context's stream takes the place of a plain one without a change to the lane.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, Self

import torch

from drift_engine.errors import DeviceError


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

    def scope(self) -> AbstractContextManager[None]: ...

    def mark(self) -> Mark: ...

    def capture(self, work: Callable[[], None]) -> Graph:
        """Runs `work` once and returns a graph that repeats it on the same tensors. Inside `scope`; may block."""


class CudaMark:
    def __init__(self, event: torch.cuda.Event) -> None:
        self._event = event

    def done(self) -> bool:
        with translated("waiting for a pass"):
            return bool(self._event.query())  # type: ignore[no-untyped-call]

    def since_s(self, earlier: CudaMark) -> float:
        with translated("timing a pass"):
            return float(earlier._event.elapsed_time(self._event)) / 1e3


class CudaStream:
    """A stream and the pool that its graphs' intermediates share: one of them runs at a time."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream
        self._pool = torch.cuda.graph_pool_handle()

    @contextmanager
    def scope(self) -> Iterator[None]:
        with translated("launching a pass"), torch.cuda.stream(self._stream):
            yield

    def mark(self) -> CudaMark:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(self._stream)
        return CudaMark(event)

    def capture(self, work: Callable[[], None]) -> Graph:
        # The first run is the pass itself and the warm-up: it compiles kernels and makes cuBLAS's workspace, neither
        # of which may happen under capture.
        work()
        graph = torch.cuda.CUDAGraph()
        # Waits for the whole device, once per graph. `thread_local`: another thread's allocation may not spoil it.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            work()
        return graph


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """torch's, the driver's and Triton's errors as DeviceError, with CUDA's error code where torch tells it."""
    try:
        yield
    except RuntimeError as error:
        code = getattr(error, "error_code", None)
        reason = str(error).strip().partition("\n")[0]
        raise DeviceError(f"the GPU failed while {doing}: {reason}", code) from error
