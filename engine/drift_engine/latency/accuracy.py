"""How good predictions were: the numbers behind the metrics."""

from __future__ import annotations

import msgspec

RECENT_PASSES = 200
"""Over which a mean goes, roughly: some seconds of decoding, a minute of prefills. Estimate of what is useful."""


class Errors(msgspec.Struct, frozen=True, gc=False):
    """Over recent traffic. A `mape` is the mean of |predicted - observed| / observed over passes that ran alone."""

    decode_mape: float
    prefill_mape: float
    fused_mape: float
    decode_under_share: float  # of decode passes beside a neighbour: longer than predicted with the guard
    decode_passes: int  # counts since the start: of 0 passes a mean is 0 and says nothing
    prefill_passes: int
    fused_passes: int
    guarded_decode_passes: int


class Recent:
    """A mean that forgets."""

    __slots__ = ("count", "mean")

    def __init__(self) -> None:
        self.mean = 0.0
        self.count = 0

    def add(self, value: float) -> None:
        self.count += 1
        self.mean += (value - self.mean) / min(self.count, RECENT_PASSES)
