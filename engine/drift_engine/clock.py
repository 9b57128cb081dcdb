"""The real clock. Everything that decides takes time as an argument or a `devices.base.Clock`."""

from __future__ import annotations

import time


class MonotonicClock:
    def now_s(self) -> float:
        return time.monotonic()
