"""How prefill and decode get their parts of a GPU: the best way that this GPU and driver know.

Down the ladder: green contexts with workqueues of their own, green contexts that share workqueues, two streams with
priorities and no partition, nothing. What a rung refused is kept for the log. `cuda` makes lanes of what comes out.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from drift_engine import wire
from drift_engine.devices.streams import Stream
from drift_engine.errors import DeviceError
from drift_kernels import partitions
from drift_kernels.driver_errors import DriverError

CONNECTIONS = "CUDA_DEVICE_MAX_CONNECTIONS"
MAX_CONNECTIONS = 32
"""Hardware queues, the most that CUDA knows; by default 8. Streams that share one wait for each other, whatever their
SMs: the parts of 8 splits and the whole device are 17 streams."""


class Streams(Protocol):
    """Makes the streams of a GPU: `streams.CudaStreams`."""

    @property
    def sms(self) -> int: ...

    def driver(self) -> partitions.Driver: ...

    def wrapped(self, handle: int) -> Stream: ...

    def plain(self, *, urgent: bool = False) -> Stream: ...


@dataclass(frozen=True, slots=True)
class Part:
    """Two streams for the two phases, fewest decode SMs first among the parts of a device."""

    split: wire.Split
    decode: Stream
    prefill: Stream


@dataclass(frozen=True, slots=True)
class Shared:
    """What a device got, and why not more. `close` when nothing runs on the streams any more."""

    sharing: wire.Sharing
    reason: str
    parts: tuple[Part, ...] = ()
    close: Callable[[], None] = lambda: None


Share = Callable[[Streams], Shared]
"""A way to share a GPU; raises DeviceError or DriverError where this GPU does not know it."""


def prepare() -> None:
    """Before CUDA starts in this process. What the environment says already holds."""
    os.environ.setdefault(CONNECTIONS, str(MAX_CONNECTIONS))


def alone(streams: Streams) -> Shared:
    """Nothing: prefill and decode take turns."""
    return Shared(wire.Sharing.NONE, "prefill and decode take turns")


def best(streams: Streams) -> Shared:
    """The highest rung that the GPU bears."""
    rungs: tuple[Share, ...] = (
        partial(partitioned, balanced=True),
        partial(partitioned, balanced=False),
        overlapping,
    )
    refused: list[str] = []
    for rung in rungs:
        try:
            shared = rung(streams)
        except (DriverError, DeviceError) as error:
            refused.append(str(error))
            continue
        reason = "; ".join([shared.reason, *_distinct(refused)])
        return Shared(shared.sharing, reason, shared.parts, shared.close)
    return Shared(wire.Sharing.NONE, "; ".join(_distinct(refused)))


def partitioned(streams: Streams, *, balanced: bool) -> Shared:
    """Green contexts. Raises DriverError."""
    made = partitions.create(streams.driver(), balanced=balanced)
    parts = tuple(
        Part(
            wire.Split(pair.decode.sms, pair.prefill.sms),
            streams.wrapped(pair.decode.stream),
            streams.wrapped(pair.prefill.stream),
        )
        for pair in made.pairs
    )
    sharing = wire.Sharing.BALANCED if balanced else wire.Sharing.BY_COUNT
    return Shared(sharing, made.describe(), parts, made.close)


def overlapping(streams: Streams) -> Shared:
    """No partition: decode's kernels go first where both wait for an SM. Raises DeviceError."""
    part = Part(wire.Split(streams.sms, streams.sms), streams.plain(urgent=True), streams.plain())
    return Shared(wire.Sharing.OVERLAP, f"two streams with priorities over all {streams.sms} SMs", (part,))


def _distinct(refused: list[str]) -> list[str]:
    return list(dict.fromkeys(refused))
