"""How far passes outlast their predictions, on a machine that is not equally fast at all times.

A prediction is the usual time of a pass, and half of them take longer. A promise on every gap needs more: what nearly
all keep. Passes beside another lane's work have that from the contention guard (`guard`), those that run alone from
here. On a GPU that does nothing else the two are nearly the same; on two cores of a virtual machine one pass in
twenty took 1.3 times its prediction, and one in a hundred 1.5 times.
"""

from __future__ import annotations

import math
from collections import deque

QUANTILE = 0.98
"""A request keeps its target by the P99 of its gaps, of which up to a half are such passes. Chunks fill what a step
may take, so it is by this much that they miss it; the steps of `guard`, whose quantile is lower, seldom fill it, for
there are few splits to choose from."""

RECENT_PASSES = 200
"""Over which the quantile goes: some twenty seconds of prefills beside decode."""

LEAST_PASSES = 20
"""Fewer tell little of their tail."""

MOST_FACTOR = 1.5
"""What lasts twice as long as predicted now and then is disturbed by others, and smaller chunks do not help it."""


class Lateness:
    """Of recent passes: observed over predicted, at QUANTILE."""

    __slots__ = ("_ratios", "factor")

    def __init__(self) -> None:
        self._ratios: deque[float] = deque(maxlen=RECENT_PASSES)
        self.factor = 1.0
        """1 to MOST_FACTOR."""

    def observe(self, ratio: float) -> None:
        """`ratio` is a pass's observed time over the predicted one."""
        self._ratios.append(ratio)
        if len(self._ratios) >= LEAST_PASSES:
            found = sorted(self._ratios)[math.ceil(QUANTILE * len(self._ratios)) - 1]
            self.factor = min(max(found, 1.0), MOST_FACTOR)
