"""What was sent to nodes that tell nothing of their caches: each one's last text, as much as its cache may hold.

Within a prompt the last block is the oldest: it goes first, as in the caches themselves, and a block that is
remembered has all blocks before it remembered.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence

from drift_router.index import blocks, entries

DEFAULT_CAPACITY_BYTES = 4 << 20
"""Of text that a node's cache holds, where nobody says. At 4 bytes a token a million tokens: what an H200 holds
beside a model of 8 billion parameters. Estimate."""


class Histories:
    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._capacities: dict[int, int] = {}
        self._texts: dict[int, collections.OrderedDict[int, int]] = {}  # slot -> block's name -> its bytes
        self._text_bytes: dict[int, int] = {}
        self._entries = 0
        self.masks: dict[int, int] = {}
        """A block's name -> the mask of nodes whose histories have it."""

    @property
    def held_bytes(self) -> int:
        return self._entries * entries.SHARED_BYTES + len(self.masks) * entries.TABLE_BYTES

    def capacity(self, slot: int, text_bytes: int) -> None:
        self._capacities[slot] = text_bytes

    def sent(self, slot: int, names: Sequence[int]) -> None:
        texts = self._texts.setdefault(slot, collections.OrderedDict())
        bit, masks, held_bytes, before = 1 << slot, self.masks, self._text_bytes.get(slot, 0), len(texts)
        use = texts.move_to_end
        for index in range(len(names) - 1, -1, -1):
            name = names[index]
            if name in texts:
                use(name)
            else:
                texts[name] = size = blocks.SIZES[index]
                held_bytes += size
                masks[name] = masks.get(name, 0) | bit
        self._text_bytes[slot] = held_bytes
        self._entries += len(texts) - before
        capacity_bytes = self._capacities.get(slot, DEFAULT_CAPACITY_BYTES)
        while self._text_bytes[slot] > capacity_bytes:
            self._drop_oldest(slot)
        while self.held_bytes > self._limit_bytes:
            self._drop_oldest(max(self._texts, key=lambda other: len(self._texts[other])))

    def clear(self, slot: int) -> None:
        while self._texts.get(slot):
            self._drop_oldest(slot)

    def forget(self, slot: int) -> None:
        """Its capacity too."""
        self.clear(slot)
        for table in (self._texts, self._text_bytes, self._capacities):
            table.pop(slot, None)

    def _drop_oldest(self, slot: int) -> None:
        name, size = self._texts[slot].popitem(last=False)
        self._text_bytes[slot] -= size
        self._entries -= 1
        if rest := self.masks[name] & ~(1 << slot):
            self.masks[name] = rest
        else:
            del self.masks[name]
