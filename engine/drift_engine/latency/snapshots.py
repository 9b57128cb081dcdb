"""All that a latency model has learned, as data: `model` makes and takes it, `saved` writes and reads it.

Every type checks its own invariants, so a file that decodes can be restored.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Annotated

import msgspec

Amount = Annotated[float, msgspec.Meta(ge=0)]
Sms = Annotated[int, msgspec.Meta(ge=1)]


class EstimateState(msgspec.Struct, frozen=True, gc=False):
    """One formula on lanes of one size; see `online.Estimate`."""

    sms: Sms
    coefficients: tuple[Amount, ...]
    spread: Amount
    covariance: tuple[tuple[float, ...], ...]
    floors: tuple[Amount, ...]

    def __post_init__(self) -> None:
        size = len(self.coefficients)
        if [len(self.floors), *map(len, self.covariance)] != [size] * (size + 1):
            raise ValueError(f"an estimate of {size} coefficients has parts of other sizes")
        numbers = (x for row in self.covariance for x in row)
        _check_finite((*self.coefficients, self.spread, *self.floors, *numbers))
        for i, row in enumerate(self.covariance):
            if row[i] <= 0 or any(row[j] != self.covariance[j][i] for j in range(i)):
                raise ValueError("a covariance is not symmetric with a positive diagonal")


class CellState(msgspec.Struct, frozen=True, gc=False):
    """One cell of a contention guard; see `guard.Cell`."""

    sms: Sms
    load_class: int
    neighbour_class: int
    factor: Annotated[float, msgspec.Meta(ge=1)]
    spread: Amount

    def __post_init__(self) -> None:
        _check_finite((self.factor, self.spread))


class Snapshot(msgspec.Struct, frozen=True, gc=False):
    prefill: tuple[EstimateState, ...] = ()  # by ascending SM count
    decode: tuple[EstimateState, ...] = ()
    prefill_guard: tuple[CellState, ...] = ()
    decode_guard: tuple[CellState, ...] = ()

    def __post_init__(self) -> None:
        for curve, size in ((self.prefill, 5), (self.decode, 3)):
            if any(len(state.coefficients) != size for state in curve):
                raise ValueError(f"an estimate has not {size} coefficients")
            if any(lower.sms >= upper.sms for lower, upper in pairwise(curve)):
                raise ValueError("estimates are not in ascending order of SM counts")


def _check_finite(values: Iterable[float]) -> None:
    if not all(map(math.isfinite, values)):
        raise ValueError("a number is not finite")
