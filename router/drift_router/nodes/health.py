"""Whether a node answers when it is asked how it does; and since when it is as quick as it will be."""

from __future__ import annotations

import enum

from drift_router.policies import warming

MISSES = 3
"""In a row that make a node unhealthy: 0.75 s at the usual interval, more than a garbage collection or a lost
packet."""

HITS = 2
"""In a row that make it healthy again. A node that was never asked needs one."""

SIGN_OF_LIFE_S = 1.0
"""Within which a byte of an answer outweighs a missed report: a node whose loop is too busy to report is not dead,
and taking it out sends its load to the others, which are no less busy."""


class State(enum.StrEnum):
    UNKNOWN = "unknown"  # never answered yet
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class Health:
    __slots__ = ("_healthy_since_s", "_hits", "_lost_since_s", "_misses", "_sign_s", "_warm", "state")

    def __init__(self, *, warm: bool) -> None:
        """`warm`: it takes its full share from its first sign on."""
        self.state = State.UNKNOWN
        self._hits = 0
        self._misses = 0
        self._sign_s = -SIGN_OF_LIFE_S
        self._warm = warm
        self._healthy_since_s: float | None = None
        self._lost_since_s: float | None = None

    def hit(self, now_s: float) -> None:
        self._misses = 0
        self._hits += 1
        self._lost_since_s = None
        if self.state is State.UNKNOWN or self._hits >= HITS:
            self.state = State.HEALTHY
            if self._healthy_since_s is None:
                self._healthy_since_s = now_s

    def missed(self, now_s: float) -> None:
        if now_s - self._sign_s < SIGN_OF_LIFE_S:
            return
        self._hits = 0
        self._misses += 1
        if self._misses >= MISSES:
            self.state = State.UNHEALTHY
            if self._lost_since_s is None:
                self._lost_since_s = now_s

    def sign(self, now_s: float) -> None:
        """A byte of an answer came."""
        self._sign_s = now_s
        self._lost_since_s = None

    def lost_s(self, now_s: float) -> float:
        """For how long it has neither answered nor sent a byte, since it became unhealthy; 0: it did."""
        return now_s - self._lost_since_s if self._lost_since_s is not None else 0.0

    def silent_s(self, now_s: float) -> float:
        """Since the last byte of an answer of its."""
        return now_s - self._sign_s

    def restarted(self, now_s: float) -> None:
        """It is cold again."""
        self._warm = False
        self._healthy_since_s = now_s

    def warmth(self, now_s: float) -> float:
        """1: as quick as it will be."""
        if self._warm:
            return 1.0
        return warming.warmth(now_s - self._healthy_since_s if self._healthy_since_s is not None else 0.0)
