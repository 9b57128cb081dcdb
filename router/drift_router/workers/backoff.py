"""How long the parent waits before it starts a worker again."""

from __future__ import annotations

FIRST_S = 0.2
MOST_S = 10.0
"""One that ran for so long was no failure to start."""


class Backoff:
    def __init__(self) -> None:
        self._pause_s = FIRST_S

    def ended(self, lived_s: float) -> float:
        """A worker is gone; the pause before the next one, in seconds."""
        pause_s = FIRST_S if lived_s >= MOST_S else self._pause_s
        self._pause_s = min(2 * pause_s, MOST_S)
        return pause_s
