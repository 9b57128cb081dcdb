"""An NVIDIA GPU as a device: a lane over all of it, and a pair of lanes for every split that `sharing` made.

Lanes of a split work at the same time, each on its SMs; a phase that is alone takes the lane over the whole GPU,
which is no partition: in one of 128 SMs cuBLAS was published to lose 28 %.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from drift_engine import wire
from drift_engine.devices import cuda_lanes, sharing
from drift_engine.devices.base import Clock, Event, Pass
from drift_engine.devices.cuda_lanes import CudaLane
from drift_engine.devices.cuda_passes import CudaCut
from drift_engine.devices.graphs import DecodeGraphs
from drift_engine.devices.ordering import Ordering
from drift_engine.devices.runner import Runner
from drift_engine.devices.sharing import Share, Shared
from drift_engine.devices.streams import CudaStreams, Stream, translated


class CudaDevice:
    """A GPU with its model and KV store. `graphs` False runs decode eagerly too."""

    lookahead_steps = 1

    def __init__(
        self,
        runner: Runner,
        clock: Clock,
        whole: Stream,
        shared: Shared,
        *,
        sms: int,
        max_running: int,
        max_context_tokens: int,
        graphs: bool = True,
    ) -> None:
        self.clock: Clock = clock
        self._runner = runner
        self._shared = shared
        self._ordering = Ordering()

        def lane(name: str, stream: Stream, sms: int, *, decodes: bool) -> CudaLane:
            decode = None
            if graphs and decodes:  # captured and given memory when a batch first needs them
                decode = DecodeGraphs(
                    runner,
                    stream.capture,
                    max_rows=max_running,
                    max_context_tokens=max_context_tokens,
                    lane_sms=sms,
                )
            return CudaLane(name, runner, stream, clock, self._ordering, sms=sms, graphs=decode)

        self.whole = lane("whole", whole, sms, decodes=True)
        self._lanes = {
            part.split: (
                lane(f"decode-{part.split.decode_sms}", part.decode, part.split.decode_sms, decodes=True),
                lane(
                    f"prefill-{part.split.prefill_sms}", part.prefill, part.split.prefill_sms, decodes=False
                ),
            )
            for part in shared.parts
        }

    @property
    def splits(self) -> Sequence[wire.Split]:
        return tuple(self._lanes)

    @property
    def sharing(self) -> wire.Sharing:
        return self._shared.sharing

    @property
    def sharing_reason(self) -> str:
        return self._shared.reason

    def lanes(self, split: wire.Split) -> tuple[CudaLane, CudaLane]:
        assert split in self._lanes, f"{split} is not among {self.splits}"
        return self._lanes[split]

    def recall(self, event: Event) -> None:
        """A pass has one step."""

    def cut(self, work: Pass) -> CudaCut:
        return CudaCut(work, self._runner.model.config.num_layers)

    def wait(self, events: Sequence[Event], timeout_s: float) -> bool:
        """Raises DeviceError where the GPU failed."""
        return cuda_lanes.wait(events, timeout_s)

    def release(self, request_id: str) -> None:
        self._runner.release(request_id)
        self._ordering.forget(request_id)

    def close(self) -> None:
        """First the passes end, then graphs go, then streams and partitions. Raises DeviceError where one hangs."""
        for lane in self._all():
            lane.close()
        with translated("giving back its partitions"):
            self._shared.close()

    def _all(self) -> Iterator[CudaLane]:
        yield self.whole
        for pair in self._lanes.values():
            yield from pair


def open_device(
    runner: Runner,
    clock: Clock,
    share: Share = sharing.best,
    *,
    max_running: int,
    max_context_tokens: int,
    graphs: bool = True,
) -> CudaDevice:
    """The GPU that holds the runner's model, split as `share` can. Raises DeviceError."""
    with translated("starting its lanes"):
        streams = CudaStreams(runner.model.device)
        whole, shared = streams.plain(), share(streams)
        # Weights and KV pages were made on the default stream; the lanes' streams don't wait for it.
        torch.cuda.synchronize(runner.model.device)
    return CudaDevice(
        runner,
        clock,
        whole,
        shared,
        sms=streams.sms,
        max_running=max_running,
        max_context_tokens=max_context_tokens,
        graphs=graphs,
    )
