"""The highest rate that keeps a promise: the same requests, faster and slower, until it is known closely enough."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

STEP = 1.6
"""Factor between two rates while one end of the interval is missing."""

CLOSE = 0.03
"""Relative width of the interval at which the search ends: below the difference between two arrangements of the same
requests."""

MOST_RUNS = 25
"""Rates from a ten-thousandth to ten thousand times the first are found within these."""


class Tried(msgspec.Struct, frozen=True):
    """One rate. `attainment` of a run that was given up is what it could have reached at best."""

    rate_scale: float
    attainment: float
    kept: bool


class Found(msgspec.Struct, frozen=True):
    """`rate_scale` is the highest rate that kept the promise; None where no rate did."""

    rate_scale: float | None
    tried: tuple[Tried, ...]


def highest(run: Callable[[float], tuple[float, bool]], first: float = 1.0) -> Found:
    """`run(rate_scale)` says (attainment, promise kept). Deterministic; assumes that slower is no worse."""
    tried: list[Tried] = []

    def keeps(scale: float) -> bool:
        attainment, kept = run(scale)
        tried.append(Tried(scale, attainment, kept))
        return kept

    kept: float | None = None
    missed: float | None = None
    scale = first
    while len(tried) < MOST_RUNS and (kept is None or missed is None):
        if keeps(scale):
            kept, scale = scale, scale * STEP
        else:
            missed, scale = scale, scale / STEP
    while len(tried) < MOST_RUNS and kept is not None and missed is not None and missed > kept * (1 + CLOSE):
        middle = (kept * missed) ** 0.5
        if keeps(middle):
            kept = middle
        else:
            missed = middle
    return Found(kept, tuple(tried))
