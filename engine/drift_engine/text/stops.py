"""Stop strings, found across the borders of tokens.

In: pieces of text. Out: text that can be shown because no stop string can begin in it. The result does not
depend on how the text was cut: a stop string takes effect at the character that completes it.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopMatcher:
    """Holds back the longest end of the text that may still become a stop string."""

    def __init__(self, stops: Sequence[str]) -> None:
        assert all(stops), "an empty stop string would match everywhere"
        self._stops = tuple(stops)
        self._pending = ""

    def push(self, text: str) -> tuple[str, bool]:
        """(text to show, whether a stop string was found). After True nothing more may be pushed."""
        if not self._stops:
            return text, False
        pending = self._pending + text
        start = self._find(pending)
        if start is not None:
            self._pending = ""
            return pending[:start], True
        held = self._held(pending)
        self._pending = pending[len(pending) - held :]
        return pending[: len(pending) - held], False

    def flush(self) -> str:
        """What was held back, once no more text comes."""
        pending, self._pending = self._pending, ""
        return pending

    def _find(self, text: str) -> int | None:
        best: tuple[int, int] | None = None
        for stop in self._stops:
            start = text.find(stop)
            if start >= 0 and (best is None or (start + len(stop), start) < best):
                best = (start + len(stop), start)
        return None if best is None else best[1]

    def _held(self, text: str) -> int:
        longest = 0
        for stop in self._stops:
            for length in range(min(len(stop) - 1, len(text)), longest, -1):
                if text.endswith(stop[:length]):
                    longest = length
                    break
        return longest
