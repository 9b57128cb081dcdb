"""Whether the operator's loops still move: each says so once a round, and the liveness probe asks who is late."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

ROUNDS_MISSED = 4
"""Of a loop's own period, before it is late: one that waits for an API server's deadline is slow, not dead."""

PATIENCE_S = 30.0
"""No loop is late before that, however short its period: a restart costs more than a pause."""


@dataclass(frozen=True, slots=True)
class Late:
    loop: str
    silent_s: float
    limit_s: float

    def __str__(self) -> str:
        return f"loop {self.loop} has not moved for {self.silent_s:.0f} s; its limit is {self.limit_s:g} s"


@dataclass(slots=True)
class _Loop:
    limit_s: float
    last_s: float


class Pulse:
    """Loops by name. A loop beats also in rounds that fail: a restart repairs no API server."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._loops: dict[str, _Loop] = {}

    def expect(self, loop: str, period_s: float) -> None:
        """From now on; a loop that was expected before starts anew, with this period."""
        self._loops[loop] = _Loop(max(PATIENCE_S, ROUNDS_MISSED * period_s), self._clock())

    def beat(self, loop: str) -> None:
        """Once a round. A beat of a loop that isn't expected (any more) is nothing."""
        if loop in self._loops:
            self._loops[loop].last_s = self._clock()

    def forget(self, loop: str) -> None:
        """It has ended as it should."""
        self._loops.pop(loop, None)

    def late(self) -> list[Late]:
        """The most silent first."""
        now_s = self._clock()
        found = [
            Late(name, now_s - loop.last_s, loop.limit_s)
            for name, loop in self._loops.items()
            if now_s - loop.last_s > loop.limit_s
        ]
        return sorted(found, key=lambda late: -late.silent_s)
