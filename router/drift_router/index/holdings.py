"""Which pages nodes hold: exactly what their events say, of the page names that are kept.

When the names do not fit any more every second one goes. The names decide which, so that nothing that stays becomes
wrong; what goes is missing.
"""

from __future__ import annotations

from collections.abc import Iterable

from drift_engine import hashing
from drift_router.index import entries


class Holdings:
    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        # Slot -> names: a node that comes or goes costs nothing of the others.
        self._nodes: dict[int, set[int]] = {}
        self._entries = 0  # of all these sets
        self.masks: dict[int, int] = {}
        """A page's name -> the mask of nodes that hold it."""
        self.sample = hashing.SAMPLE
        """Names that are multiples of it are kept; a power of two."""

    @property
    def held_bytes(self) -> int:
        return len(self.masks) * entries.TABLE_BYTES + self._entries * entries.SET_BYTES

    def stored(self, slot: int, pages: Iterable[int]) -> None:
        self._add(slot, self._kept(pages))
        self._fit()

    def removed(self, slot: int, pages: Iterable[int]) -> None:
        if held := self._nodes.get(slot):
            self._discard(slot, held.intersection(self._kept(pages)))

    def replace(self, slot: int, pages: Iterable[int]) -> None:
        """Touches only what is not as it was."""
        new, old = self._kept(pages), self._nodes.get(slot, set())
        self._discard(slot, old - new)
        self._add(slot, new - old)
        self._fit()

    def clear(self, slot: int) -> None:
        self._discard(slot, self._nodes.pop(slot, set()))

    def _kept(self, pages: Iterable[int]) -> set[int]:
        others = self.sample - 1
        return {page for page in pages if not page & others}

    def _add(self, slot: int, pages: set[int]) -> None:
        held = self._nodes.setdefault(slot, set())
        before, bit, masks = len(held), 1 << slot, self.masks
        held |= pages
        self._entries += len(held) - before
        for page in pages:
            masks[page] = masks.get(page, 0) | bit

    def _discard(self, slot: int, pages: set[int]) -> None:
        """All of them are held by the node."""
        bit, masks = 1 << slot, self.masks
        for page in pages:
            if rest := masks[page] ^ bit:
                masks[page] = rest
            else:
                del masks[page]
        self._entries -= len(pages)
        if held := self._nodes.get(slot):
            held -= pages

    def _fit(self) -> None:
        while self.held_bytes > self._limit_bytes:
            self.sample *= 2
            others = self.sample - 1
            self.masks = {page: mask for page, mask in self.masks.items() if not page & others}
            self._nodes = {slot: self._kept(held) for slot, held in self._nodes.items()}
            self._entries = sum(map(len, self._nodes.values()))
