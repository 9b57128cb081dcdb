"""A pass on a GPU as the host knows it: what is prepared for it, what its launches make, and their end.

`cuda_lanes` launches them. What a launch makes appears in the order of the device, not of the host: only work that is
launched behind it may look, or the host when its event is done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from drift_engine.devices import drawing
from drift_engine.devices.base import Drawn, Pass, Results
from drift_engine.devices.staging import Staging
from drift_engine.devices.streams import Mark
from drift_engine.models.inputs import ForwardInputs
from drift_kernels.sampling import Sampled

State = tuple[torch.Tensor, torch.Tensor | None]


@dataclass(slots=True)
class Made:
    """What a launch makes on the device."""

    logits_BV: torch.Tensor | None = None
    fetched: Sampled | None = None
    kept: State | None = None
    """Memory of another lane's stream, which may have it again when this launch is done, and not before."""


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
        self.requests = [row.request_id for row in work.rows]
        self.lane: object = None  # of the layers that were launched last
        self.staging: Staging | None = None
        self.give_back: Callable[[Staging], None] | None = None  # to the lane of its first layers
        self.inputs: ForwardInputs | None = None
        self.rows_B: torch.Tensor | None = None
        self.draws: drawing.StagedDraws | None = None
        self.state: State | None = None  # in the order of the device

    def drop(self) -> None:
        self.state = None
        if self.staging is not None:
            assert self.give_back is not None
            self.give_back(self.staging)
            self.staging = None
