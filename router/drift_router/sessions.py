"""Where each session was served last: a preference, bounded in number and in time."""

from __future__ import annotations

MOST = 100_000
"""Sessions that are remembered, some 20 MB; the one that was silent the longest is forgotten first."""


class Sessions:
    def __init__(self, ttl_s: float, most: int = MOST) -> None:
        self._ttl_s = ttl_s
        self._most = most
        self._seen: dict[str, tuple[int, float]] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def slot(self, session: str, now_s: float) -> int | None:
        found = self._seen.get(session)
        if found is None:
            return None
        slot, until_s = found
        if now_s >= until_s:
            del self._seen[session]
            return None
        return slot

    def served(self, session: str, slot: int, now_s: float) -> None:
        self._seen.pop(session, None)
        self._seen[session] = (slot, now_s + self._ttl_s)
        if len(self._seen) > self._most:
            del self._seen[next(iter(self._seen))]

    def forget(self, slot: int) -> None:
        """The node is gone: its slot may become another's."""
        self._seen = {name: seen for name, seen in self._seen.items() if seen[0] != slot}
