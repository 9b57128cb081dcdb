"""A lane of a GPU: launches passes on its stream and never waits for them.

A launch packs the pass into page-locked memory and queues on the stream: one copy up, the forward (a graph where
there is one, or some layers of it), the drawing of tokens, their copies down, and a mark. The core's thread launches
and polls the mark; nothing between them reads from the device. A lane knows its SMs only as a number and its stream
only as `streams.Stream`. Streams, staging memory and graphs are its own; of the order between lanes `ordering` takes
care.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import torch

from drift_engine.devices import drawing, packing
from drift_engine.devices.base import Clock, CutPass, Drawn, Event, Pass
from drift_engine.devices.cuda_passes import CudaCut, CudaEvent, Made
from drift_engine.devices.graphs import DecodeGraphs, StagedDecode
from drift_engine.devices.ordering import Ordering
from drift_engine.devices.runner import Runner
from drift_engine.devices.staging import Staging
from drift_engine.devices.streams import Stream
from drift_engine.errors import DeviceError
from drift_kernels.sampling import Sampled

POLL_S = 20e-6
"""Between two looks at a mark. A sleep takes some 50 us longer than asked (Linux' default timer slack), about 1 %
of a decode step of an 8B model, and leaves the processor to others. Estimate, not yet measured on a GPU machine."""

CLOSE_TIMEOUT_S = 10.0
"""Many times the longest pass; a GPU that needs longer hangs."""

MAX_IN_FLIGHT = 8
"""Passes of one lane that were launched and not read; each holds some megabytes of page-locked memory."""


class CudaLane:
    """A stream over `sms` SMs. `graphs` None runs every pass eagerly."""

    def __init__(
        self,
        name: str,
        runner: Runner,
        stream: Stream,
        clock: Clock,
        ordering: Ordering,
        *,
        sms: int,
        graphs: DecodeGraphs | None,
    ) -> None:
        self.name = name
        self.sms = sms
        self._runner = runner
        self._stream = stream
        self._clock = clock
        self._ordering = ordering
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
        start_s = self._clock.now_s()
        with self._stream.scope():
            staging = self._begin(cut)
            moved = cut.lane not in (None, self)
            forward = partial(self._layers, cut, cut.launched, stop, moved)
            cut.launched, cut.lane = stop, self

            def collect(made: Made) -> dict[str, Sequence[Drawn]]:
                if stop < cut.layers:
                    return {}
                cut.drop()
                return _collect(cut.work, made.fetched)

            return self._queue(cut.requests, staging, forward, cut.draws, start_s, collect)

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Waits for what was launched last, then gives up the graphs. Raises DeviceError where it does not end."""
        if self._last is not None and not wait([self._last], timeout_s):
            raise DeviceError(f"lane {self.name}: a pass did not end within {timeout_s:.0f} s")
        if self._graphs is not None:
            self._graphs.clear()

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

            def collect(made: Made) -> dict[str, Sequence[Drawn]]:
                drawn = _collect(work, made.fetched)
                self.give(staging)
                return drawn

            requests = [row.request_id for row in work.decode]
            forward = partial(_replay, graphs, staged)
            return self._queue(requests, staging, forward, draws, start_s, collect)

    def _queue(
        self,
        requests: Sequence[str],
        staging: Staging,
        forward: Callable[[Made], None],
        draws: drawing.StagedDraws | None,
        start_s: float,
        collect: Callable[[Made], dict[str, Sequence[Drawn]]],
    ) -> CudaEvent:
        """Everything that the device does for a launch, behind what other lanes do for its requests."""
        stream, made = self._stream, Made()
        packing_s = self._clock.now_s() - start_s
        self._ordering.before(stream, requests)
        start = stream.mark()
        stream.run(staging.send)
        forward_start = stream.mark()
        stream.run(partial(forward, made))
        forward_end = stream.mark()
        stream.run(partial(self._draw, made, draws, staging))
        end = stream.mark()
        self._ordering.launched(stream, requests, end)
        event = CudaEvent(
            start, (forward_start, forward_end), end, start_s, packing_s, partial(collect, made)
        )
        self._last = event
        return event

    def _begin(self, cut: CudaCut) -> Staging:
        """The pass's inputs, put where the next `send` takes them up; once per pass."""
        if cut.staging is None:
            cut.staging, cut.give_back = self._take(), self.give
            packed = self._runner.pack(cut.work)
            cut.inputs = packing.forward_inputs(packed, cut.staging.put)
            cut.rows_B = cut.staging.put(packed.drawing_D) if len(packed.drawing_D) else None
            cut.draws = self._stage_draws(cut.work, cut.staging)
        return cut.staging

    def _stage_draws(self, work: Pass, staging: Staging) -> drawing.StagedDraws | None:
        return drawing.stage(list(work.draws().values()), self._runner.model.config.vocab_size, staging.put)

    def _layers(self, cut: CudaCut, start: int, stop: int, moved: bool, made: Made) -> None:
        model, kv = self._runner.model, self._runner.kv
        assert cut.inputs is not None
        before = cut.state or (model.embed(cut.inputs), None)
        assert (before[1] is None) == (start == 0), "layers overtook those before them"
        cut.state = model.layers(*before, cut.inputs, kv, start, stop, lane_sms=self.sms)
        if moved:
            made.kept = before
        if stop == cut.layers and cut.rows_B is not None:
            made.logits_BV = model.logits(*cut.state, cut.rows_B, lane_sms=self.sms)

    def _draw(self, made: Made, draws: drawing.StagedDraws | None, staging: Staging) -> None:
        if made.logits_BV is not None:
            made.fetched = _fetch(drawing.sample(made.logits_BV, draws, lane_sms=self.sms), staging)
            made.logits_BV = None

    def _take(self) -> Staging:
        assert self._in_flight < MAX_IN_FLIGHT, f"{self._in_flight} passes were launched and never read"
        self._in_flight += 1
        return self._free.pop() if self._free else Staging(self._runner.model.device)


def wait(events: Sequence[Event], timeout_s: float) -> bool:
    """Whether one of the events is done within the time. Raises DeviceError where the GPU failed."""
    deadline_s = time.monotonic() + timeout_s
    while not any(event.done() for event in events):
        if time.monotonic() >= deadline_s:
            return False
        time.sleep(POLL_S)
    return True


def _replay(graphs: DecodeGraphs, staged: StagedDecode, made: Made) -> None:
    made.logits_BV = graphs.run(staged)


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
