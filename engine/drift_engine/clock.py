"""Clocks. Everything that decides takes time as an argument or a `devices.base.Clock`."""

from __future__ import annotations

import time


class MonotonicClock:
    """The machine's."""

    def now_s(self) -> float:
        return time.monotonic()

    def sleep_until(self, at_s: float, timeout_s: float) -> None:
        time.sleep(max(0.0, min(at_s - time.monotonic(), timeout_s)))


class VirtualClock:
    """Goes on only where somebody waits, at once, and never past `horizon_s`."""

    def __init__(self) -> None:
        self.horizon_s = float("inf")
        self._now_s = 0.0

    def now_s(self) -> float:
        return self._now_s

    def sleep_until(self, at_s: float, timeout_s: float) -> None:
        """Whatever the time-out is: nothing else happens meanwhile."""
        self._now_s = max(self._now_s, min(at_s, self.horizon_s))
