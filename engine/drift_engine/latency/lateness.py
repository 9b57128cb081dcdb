"""How far passes outlast their predictions, on a machine that is not equally fast at all times.

A prediction is the usual time of a pass, and half of them take longer. A promise on every gap needs more: what 19 of
20 keep. Passes beside another lane's work have that from the contention guard (`guard`), those that run alone from
here. On a GPU that does nothing else the two are nearly the same; on two cores of a virtual machine one pass in
twenty took 1.3 times its prediction.
"""

from __future__ import annotations

import math
from collections import deque

QUANTILE = 0.95
"""As `guard.DECODE_QUANTILE`: the planner compares times of both kinds."""

RECENT_PASSES = 100
"""Over which the quantile goes: some ten seconds of prefills beside decode."""

LEAST_PASSES = 20
"""Fewer have no 95th percentile."""

MOST_FACTOR = 1.5
"""What lasts twice as long as predicted now and then is disturbed by others, and smaller chunks do not help it."""


class Lateness:
    """Of recent passes: observed over predicted, at its 95th percentile."""

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
