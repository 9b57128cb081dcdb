"""An NVIDIA GPU as a device: lanes that launch passes on a stream and never wait for them.

A launch packs the pass into page-locked memory and queues on the lane's stream: one copy up, the forward (a graph
where there is one, or some layers of it), the drawing of tokens, their copies down, and a mark. The core's thread
launches and polls the mark; nothing between them reads from the device. One lane over the whole GPU today. A lane
knows its SMs only as a number and its stream only as `streams.Stream`, so lanes of a split differ in these two.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from drift_engine import wire
from drift_engine.devices import drawing, packing
from drift_engine.devices.base import Clock, CutPass, Drawn, Event, Pass, Results
from drift_engine.devices.graphs import DecodeGraphs
from drift_engine.devices.runner import Runner
from drift_engine.devices.staging import Staging
from drift_engine.devices.streams import CudaStream, Mark, Stream, translated
from drift_engine.errors import DeviceError
from drift_engine.models.inputs import ForwardInputs
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
        launched_s: float,
        packing_s: float,
        collect: Callable[[], dict[str, Sequence[Drawn]]],
    ) -> None:
        self._start = start
        self._forward = forward
        self._end = end
        self._launched_s = launched_s
        self._packing_s = packing_s
        self._collect: Callable[[], dict[str, Sequence[Drawn]]] | None = collect
        self._results: Results | None = None

    def done(self) -> bool:
        """Raises DeviceError where the GPU failed."""
        return self._results is not None or self._end.done()

    def results(self) -> Results:
        """Frees the pass's memory at the first call; until then it counts as in flight."""
        if self._results is None:
            assert self.done(), "results of a pass that is still running"
            assert self._collect is not None
            pass_s = self._packing_s + self._end.since_s(self._start)
            forward_start, forward_end = self._forward
            forward_s = forward_end.since_s(forward_start)
            self._results = Results(self._collect(), self._launched_s, pass_s, forward_s)
            self._collect = None  # the lane keeps its last event, which must not keep the pass's rows
        return self._results


class CudaCut:
    """A pass between its layers: its inputs and what it computed so far, on the device."""

    def __init__(self, work: Pass, layers: int) -> None:
        self.work = work
        self.layers = layers
        self.launched = 0
        self.lane: CudaLane | None = None  # of its first layers, and so far of all
        self.staging: Staging | None = None
        self.inputs: ForwardInputs | None = None
        self.rows_B: torch.Tensor | None = None
        self.draws: drawing.StagedDraws | None = None
        self.state: tuple[torch.Tensor, torch.Tensor | None] | None = None

    def drop(self) -> None:
        if self.lane is not None and self.staging is not None:
            self.lane.give(self.staging)
            self.staging = None


class CudaLane:
    """A stream over `sms` SMs. `graphs` None runs every pass eagerly."""

    def __init__(
        self,
        name: str,
        runner: Runner,
        stream: Stream,
        clock: Clock,
        *,
        sms: int,
        graphs: DecodeGraphs | None,
    ) -> None:
        self.name = name
        self.sms = sms
        self._runner = runner
        self._stream = stream
        self._clock = clock
        self._graphs = graphs
        self._free: list[Staging] = []
        self._in_flight = 0
        self._last: CudaEvent | None = None

    def launch(self, work: Pass) -> CudaEvent:
        """Raises DeviceError where the GPU refused."""
        if self._graphs is not None and self._graphs.takes(work):
            return self._launch_graph(work, self._graphs)
        cut = CudaCut(work, self._runner.model.config.num_layers)
        return self.launch_layers(cut, cut.layers)

    def launch_layers(self, cut: CutPass, stop: int) -> CudaEvent:
        """Raises DeviceError where the GPU refused."""
        assert isinstance(cut, CudaCut)
        assert cut.launched < stop <= cut.layers, (cut.launched, stop, cut.layers)
        assert cut.lane in (None, self), "a cut pass stays on its lane"
        model = self._runner.model
        start_s = self._clock.now_s()
        with self._stream.scope():
            staging = self._begin(cut)
            packing_s = self._clock.now_s() - start_s
            start = self._stream.mark()
            staging.send()
            forward_start = self._stream.mark()
            assert cut.inputs is not None
            x_TE, residual_TE = cut.state or (model.embed(cut.inputs), None)
            cut.state = model.layers(
                x_TE, residual_TE, cut.inputs, self._runner.kv, cut.launched, stop, lane_sms=self.sms
            )
            cut.launched = stop
            logits_BV = None
            if stop == cut.layers and cut.rows_B is not None:
                logits_BV = model.logits(*cut.state, cut.rows_B, lane_sms=self.sms)
            forward = forward_start, self._stream.mark()
            fetched = self._draw(logits_BV, cut.draws, staging)
            end = self._stream.mark()

        def collect() -> dict[str, Sequence[Drawn]]:
            if stop < cut.layers:
                return {}
            cut.drop()
            return _collect(cut.work, fetched)

        self._last = CudaEvent(start, forward, end, start_s, packing_s, collect)
        return self._last

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Raises DeviceError where the last pass does not end."""
        if self._last is not None and not wait([self._last], timeout_s):
            raise DeviceError(f"lane {self.name}: a pass did not end within {timeout_s:.0f} s")

    def give(self, staging: Staging) -> None:
        """Takes back what belonged to a pass that is over."""
        staging.clear()
        self._free.append(staging)
        self._in_flight -= 1

    def _launch_graph(self, work: Pass, graphs: DecodeGraphs) -> CudaEvent:
        start_s = self._clock.now_s()
        with self._stream.scope():
            staging = self._take()
            staged = graphs.stage(self._runner.pack(work), staging.put)
            draws = self._stage_draws(work, staging)
            packing_s = self._clock.now_s() - start_s
            start = self._stream.mark()
            staging.send()
            forward_start = self._stream.mark()
            logits_BV = graphs.run(staged)
            forward = forward_start, self._stream.mark()
            fetched = self._draw(logits_BV, draws, staging)
            end = self._stream.mark()

        def collect() -> dict[str, Sequence[Drawn]]:
            drawn = _collect(work, fetched)
            self.give(staging)
            return drawn

        self._last = CudaEvent(start, forward, end, start_s, packing_s, collect)
        return self._last

    def _begin(self, cut: CudaCut) -> Staging:
        """The pass's inputs, put where the next `send` takes them up; once per pass."""
        if cut.staging is None:
            cut.lane, cut.staging = self, self._take()
            packed = self._runner.pack(cut.work)
            cut.inputs = packing.forward_inputs(packed, cut.staging.put)
            cut.rows_B = cut.staging.put(packed.drawing_D) if len(packed.drawing_D) else None
            cut.draws = self._stage_draws(cut.work, cut.staging)
        return cut.staging

    def _stage_draws(self, work: Pass, staging: Staging) -> drawing.StagedDraws | None:
        return drawing.stage(list(work.draws().values()), self._runner.model.config.vocab_size, staging.put)

    def _draw(
        self, logits_BV: torch.Tensor | None, draws: drawing.StagedDraws | None, staging: Staging
    ) -> Sampled | None:
        if logits_BV is None:
            return None
        return _fetch(drawing.sample(logits_BV, draws, lane_sms=self.sms), staging)

    def _take(self) -> Staging:
        assert self._in_flight < MAX_IN_FLIGHT, f"{self._in_flight} passes were launched and never read"
        self._in_flight += 1
        return self._free.pop() if self._free else Staging(self._runner.model.device)


class CudaDevice:
    """A GPU with its model and KV store. It is not split yet."""

    splits: Sequence[wire.Split] = ()
    lookahead_steps = 1

    def __init__(self, runner: Runner, clock: Clock, whole: CudaLane) -> None:
        self.clock: Clock = clock
        self._runner = runner
        self.whole = whole

    def lanes(self, split: wire.Split) -> tuple[CudaLane, CudaLane]:
        raise AssertionError(f"{split} is not among {self.splits}")

    def recall(self, event: Event) -> None:
        """A pass has one step."""

    def cut(self, work: Pass) -> CudaCut:
        return CudaCut(work, self._runner.model.config.num_layers)

    def wait(self, events: Sequence[Event], timeout_s: float) -> bool:
        """Raises DeviceError where the GPU failed."""
        return wait(events, timeout_s)

    def release(self, request_id: str) -> None:
        self._runner.release(request_id)

    def close(self) -> None:
        self.whole.close()


def wait(events: Sequence[Event], timeout_s: float) -> bool:
    """Whether one of the events is done within the time. Raises DeviceError where the GPU failed."""
    deadline_s = time.monotonic() + timeout_s
    while not any(event.done() for event in events):
        if time.monotonic() >= deadline_s:
            return False
        time.sleep(POLL_S)
    return True


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
    return CudaDevice(runner, clock, CudaLane("whole", runner, stream, clock, sms=sms, graphs=decode))


def _fetch(sampled: Sampled, staging: Staging) -> Sampled:
    def fetch(tensor: torch.Tensor | None) -> torch.Tensor | None:
        return None if tensor is None else staging.fetch(tensor)

    return Sampled(
        staging.fetch(sampled.token_ids_B),
        fetch(sampled.logprobs_B),
        fetch(sampled.top_ids_BK),
        fetch(sampled.top_logprobs_BK),
    )


def _collect(work: Pass, fetched: Sampled | None) -> dict[str, Sequence[Drawn]]:
    if fetched is None:
        return {}
    draws = work.draws()
    found = drawing.collect(fetched, list(draws.values()))
    return {request_id: (one,) for request_id, one in zip(draws, found, strict=True)}
