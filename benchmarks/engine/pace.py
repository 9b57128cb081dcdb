"""How fast this machine is at the moment: a virtual one is not equally fast at all times."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import torch

PROBE_S = 1.5
WIDTH, HIDDEN, LAYERS, ROWS = 768, 3072, 12, 8
"""A decode step's matrices of the 117M shape: 113 MB, more than any cache holds."""

T = TypeVar("T")


class Pace:
    """The reference is how fast the machine is when this is made."""

    def __init__(self) -> None:
        dice = torch.Generator().manual_seed(0)
        self._weights = [torch.rand(WIDTH, HIDDEN, generator=dice) for _ in range(LAYERS)]
        self._rows = torch.rand(ROWS, WIDTH, generator=dice)
        self.reference = statistics.median(self.now() for _ in range(5))

    def now(self) -> float:
        """Passes over all the weights per second, of all cores together."""
        counts: list[int] = []
        end_s = time.monotonic() + PROBE_S

        def work() -> None:
            passes = 0
            while time.monotonic() < end_s:
                for weight in self._weights:
                    torch.matmul(self._rows, weight)
                passes += 1
            counts.append(passes)

        threads = [threading.Thread(target=work) for _ in os.sched_getaffinity(0)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(counts) / PROBE_S

    def run(self, work: Callable[[], T]) -> tuple[T, tuple[float, float]]:
        """What `work` returned, and how fast the machine was before and after it, relative to the reference."""
        before = self.now() / self.reference
        found = work()
        return found, (round(before, 3), round(self.now() / self.reference, 3))
