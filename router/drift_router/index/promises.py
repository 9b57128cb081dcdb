"""What was sent to nodes just now, as if they held it already: requests of one burst follow each other.

A promise stands until the node's events have had time to say so or not. Names are kept in two generations, which turn
every LASTS_S: so forgetting costs nothing for each name, and a promise stands between one and two times as long.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from drift_router.index import entries

LASTS_S = 5.0
"""A prompt's pages are told when they are computed: within the time to first token, which promises keep below some
seconds. Others take 2 s (llm-d) and 5 s (Dynamo)."""


class Promises:
    def __init__(self, limit_bytes: int) -> None:
        self._generation_entries = limit_bytes // entries.TABLE_BYTES // 2
        self._turned_s = -math.inf
        self.new: dict[int, int] = {}
        """A block's name -> the mask of nodes that it was sent to."""
        self.old: dict[int, int] = {}

    @property
    def held_bytes(self) -> int:
        return (len(self.new) + len(self.old)) * entries.TABLE_BYTES

    def turn(self, now_s: float) -> None:
        """Forgets what is too old. To be called before the tables are read."""
        age_s = now_s - self._turned_s
        if age_s >= 2 * LASTS_S:
            self.new, self.old, self._turned_s = {}, {}, now_s
        elif age_s >= LASTS_S:
            # not `now_s`: what is young would stand for longer than two times
            self.new, self.old, self._turned_s = {}, self.new, self._turned_s + LASTS_S

    def sent(self, slot: int, names: Sequence[int], now_s: float) -> None:
        self.turn(now_s)
        names = names[: self._generation_entries]
        if len(self.new) + len(names) > self._generation_entries:
            self.new, self.old, self._turned_s = {}, self.new, now_s
        bit, new = 1 << slot, self.new
        for name in names:
            new[name] = new.get(name, 0) | bit

    def forget(self, slot: int) -> None:
        bit = 1 << slot
        for masks in (self.new, self.old):
            for name in [name for name, mask in masks.items() if mask & bit]:
                if rest := masks[name] ^ bit:
                    masks[name] = rest
                else:
                    del masks[name]
