"""An NVIDIA GPU as a device: lanes that launch passes on a stream and never wait for them.

A launch packs the pass into page-locked memory and queues on the lane's stream: one copy up, the forward (a graph
where there is one), the drawing of tokens, their copies down, and a mark. The core's thread launches and polls the
mark; nothing between them reads from the device. One lane over the whole GPU today. A lane knows its SMs only as a
number and its stream only as `streams.Stream`, so lanes of a split differ in these two arguments.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from drift_engine.devices import drawing, packing
from drift_engine.devices.base import Clock, Drawn, Lane, Pass, Results
from drift_engine.devices.graphs import DecodeGraphs
from drift_engine.devices.runner import Runner
from drift_engine.devices.staging import Staging
from drift_engine.devices.streams import CudaStream, Mark, Stream, translated
from drift_engine.errors import DeviceError
from drift_kernels.sampling import Sampled

POLL_S = 20e-6
"""Between two looks at a mark. A sleep takes some 50 us longer than asked (Linux' default timer slack), about 1 %
of a decode step of an 8B model, and leaves the processor to others. Estimate, not yet measured on a GPU machine."""

CLOSE_TIMEOUT_S = 10.0
"""Many times the longest pass; a GPU that needs longer hangs."""

MAX_IN_FLIGHT = 8
"""Passes of one lane that were launched and not read; each holds some megabytes of page-locked memory."""


class CudaEvent:
    """The end of a pass on a lane's stream. Used by the core's thread only."""

    def __init__(
        self,
        start: Mark,
        forward: tuple[Mark, Mark],
        end: Mark,
        packing_s: float,
        collect: Callable[[], dict[str, Drawn]],
    ) -> None:
        self._start = start
        self._forward = forward
        self._end = end
        self._packing_s = packing_s
        self._collect: Callable[[], dict[str, Drawn]] | None = collect
        self._results: Results | None = None

    def done(self) -> bool:
        """Raises DeviceError where the GPU failed."""
        return self._results is not None or self._end.done()

    def wait(self, timeout_s: float) -> bool:
        """Raises DeviceError where the GPU failed."""
        deadline_s = time.monotonic() + timeout_s
        while not self.done():
            if time.monotonic() >= deadline_s:
                return False
            time.sleep(POLL_S)
        return True

    def results(self) -> Results:
        """Frees the pass's memory at the first call; until then it counts as in flight."""
        if self._results is None:
            assert self.done(), "results of a pass that is still running"
            assert self._collect is not None
            pass_s = self._packing_s + self._end.since_s(self._start)
            forward_start, forward_end = self._forward
            forward_s = forward_end.since_s(forward_start)
            self._results = Results(self._collect(), pass_s, forward_s)
            self._collect = None  # the lane keeps its last event, which must not keep the pass's rows
        return self._results


class CudaLane:
    """A stream over `lane_sms` SMs. `graphs` None runs every pass eagerly."""

    def __init__(
        self,
        name: str,
        runner: Runner,
        stream: Stream,
        clock: Clock,
        *,
        lane_sms: int,
        graphs: DecodeGraphs | None,
    ) -> None:
        self.name = name
        self._runner = runner
        self._stream = stream
        self._clock = clock
        self._lane_sms = lane_sms
        self._graphs = graphs
        self._free: list[Staging] = []
        self._in_flight = 0
        self._last: CudaEvent | None = None

    def launch(self, work: Pass) -> CudaEvent:
        """Raises DeviceError where the GPU refused."""
        start_s = self._clock.now_s()
        draws = work.draws()
        with self._stream.scope():
            staging = self._take()
            forward = self._stage_forward(work, staging)
            staged_draws = None
            if draws:
                vocab = self._runner.model.config.vocab_size
                staged_draws = drawing.stage(list(draws.values()), vocab, staging.put)
            packing_s = self._clock.now_s() - start_s
            start = self._stream.mark()
            staging.send()
            forward_start = self._stream.mark()
            logits_BV = forward()
            forward_end = self._stream.mark()
            fetched = None
            if logits_BV is not None:
                assert staged_draws is not None
                sampled = drawing.sample(logits_BV, staged_draws, lane_sms=self._lane_sms)
                fetched = _fetch(sampled, staging)
            end = self._stream.mark()

        def collect() -> dict[str, Drawn]:
            drawn = drawing.collect(fetched, list(draws.values())) if fetched is not None else []
            self._give(staging)
            return dict(zip(draws, drawn, strict=True))

        self._last = CudaEvent(start, (forward_start, forward_end), end, packing_s, collect)
        return self._last

    def close(self) -> None:
        """Raises DeviceError where the last pass does not end."""
        if self._last is not None and not self._last.wait(CLOSE_TIMEOUT_S):
            raise DeviceError(f"lane {self.name}: a pass did not end within {CLOSE_TIMEOUT_S:.0f} s")

    def _stage_forward(self, work: Pass, staging: Staging) -> Callable[[], torch.Tensor | None]:
        packed = self._runner.pack(work)
        graphs = self._graphs
        if graphs is not None and graphs.takes(work):
            staged = graphs.stage(packed, staging.put)
            return lambda: graphs.run(staged)
        inputs = packing.forward_inputs(packed, staging.put)
        rows_B = staging.put(packed.drawing_D) if len(packed.drawing_D) else None
        return lambda: self._runner.forward(inputs, rows_B, lane_sms=self._lane_sms)

    def _take(self) -> Staging:
        assert self._in_flight < MAX_IN_FLIGHT, f"{self._in_flight} passes were launched and never read"
        self._in_flight += 1
        return self._free.pop() if self._free else Staging(self._runner.model.device)

    def _give(self, staging: Staging) -> None:
        staging.clear()
        self._free.append(staging)
        self._in_flight -= 1


class CudaDevice:
    """A GPU with its model and KV store."""

    def __init__(self, runner: Runner, clock: Clock, lanes: Sequence[CudaLane]) -> None:
        self.clock: Clock = clock
        self._runner = runner
        self._lanes = lanes
        self.lanes: Sequence[Lane] = lanes

    def release(self, request_id: str) -> None:
        self._runner.release(request_id)

    def close(self) -> None:
        for lane in self._lanes:
            lane.close()


def whole_device(
    runner: Runner, clock: Clock, *, max_running: int, max_context_tokens: int, graphs: bool = True
) -> CudaDevice:
    """One lane over all SMs of the GPU that holds the runner's model. Raises DeviceError."""
    gpu = runner.model.device
    with translated("starting a lane"):
        stream = CudaStream(torch.cuda.Stream(gpu))  # type: ignore[no-untyped-call]
        sms = int(torch.cuda.get_device_properties(gpu).multi_processor_count)
        decode = None
        if graphs:
            decode = DecodeGraphs(
                runner,
                stream.capture,
                max_rows=max_running,
                max_context_tokens=max_context_tokens,
                lane_sms=sms,
            )
        # Weights, KV pages and the graphs' tensors were made on the default stream; the lane's does not wait for it.
        torch.cuda.synchronize(gpu)
    return CudaDevice(runner, clock, [CudaLane("whole", runner, stream, clock, lane_sms=sms, graphs=decode)])


def _fetch(sampled: Sampled, staging: Staging) -> Sampled:
    def fetch(tensor: torch.Tensor | None) -> torch.Tensor | None:
        return None if tensor is None else staging.fetch(tensor)

    return Sampled(
        staging.fetch(sampled.token_ids_B),
        fetch(sampled.logprobs_B),
        fetch(sampled.top_ids_BK),
        fetch(sampled.top_logprobs_BK),
    )
