"""Which node holds how much of a prompt: from its text to the names of its pages, from these to nodes.

    texts     a block of text -> the page that ends there, as nodes told with their answers (`hints`)
    holdings  a page -> the nodes that hold it, as their events say
    promises  a block -> the nodes that it was just sent to, for some seconds
    histories a block -> the nodes that it was sent to, of nodes whose events are not all known

Pages are named alike on all nodes: what one node taught of a text finds the pages of all. A cache gives up the end of
a prompt before its beginning, so that a node that holds a page holds those before it, and the last one found counts.

Of the memory holdings get half, histories a quarter, promises an eighth, and texts what is left: their oldest go
first.
"""

from __future__ import annotations

import bisect
import collections
import functools
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from drift_engine import hashing
from drift_router import snapshots
from drift_router.index import entries
from drift_router.index.blocks import Blocks
from drift_router.index.hints import Hints
from drift_router.index.histories import Histories
from drift_router.index.holdings import Holdings
from drift_router.index.promises import Promises

LEAST_LIMIT_BYTES = 64 << 10
"""Below it not even one long prompt would fit."""

REACH_PAGES = 4 * hashing.SAMPLE
"""How far behind the last page that a node named the text may still count as that page's: of one name in four, 99 in
100 gaps are shorter. Where the node named fewer, the widest gap between two of its pages counts."""


class Ties(NamedTuple):
    """Blocks of text, last to first, and the page that each leads to."""

    blocks: list[int]
    pages: list[int]


class PrefixIndex:
    """Of one model's nodes, for one worker process. A node is a slot: a small number, its bit in the masks."""

    def __init__(self, limit_bytes: int) -> None:
        if limit_bytes < LEAST_LIMIT_BYTES:
            raise ValueError(f"limit_bytes: {limit_bytes} is below {LEAST_LIMIT_BYTES}")
        self._limit_bytes = limit_bytes
        # Ordered by use. Within a prompt the last block is the oldest: a block that is known has all before it known.
        self._texts: collections.OrderedDict[int, int] = collections.OrderedDict()
        self._holdings = Holdings(limit_bytes // 2)
        self._promises = Promises(limit_bytes // 8)
        self._histories = Histories(limit_bytes // 4)
        self._states: dict[int, snapshots.IndexState] = {}

    @property
    def held_bytes(self) -> int:
        """Estimated from the numbers of entries; never above the limit."""
        return len(self._texts) * entries.ORDERED_BYTES + self._held_beside_texts_bytes

    def __len__(self) -> int:
        """Blocks of text that lead to pages."""
        return len(self._texts)

    def state(self, slot: int) -> snapshots.IndexState:
        return self._states.get(slot, snapshots.IndexState.FALLBACK)

    def match(self, names: Sequence[int], now_s: float) -> dict[int, int]:
        """Slot -> how many of the leading blocks that node is believed to hold; those that hold none are left out."""
        found: dict[int, int] = {}
        if names:
            self._match_pages(names, found)
            self._promises.turn(now_s)
            for masks in (self._promises.new, self._promises.old, self._histories.masks):
                if masks:
                    _match_masks(masks, names, found)
        return found

    def sent(self, slot: int, names: Sequence[int], now_s: float) -> None:
        """A prompt of these blocks was sent there: to be called once for each dispatch."""
        state = self.state(slot)
        if state is not snapshots.IndexState.EXACT:
            self._histories.sent(slot, names)
        if state is not snapshots.IndexState.FALLBACK:
            self._promises.sent(slot, names, now_s)
        self._trim()

    def capacity(self, slot: int, text_bytes: int) -> None:
        """How much text the node's cache may hold: the bound of its history, should it send no events."""
        self._histories.capacity(slot, text_bytes)

    def learned(self, blocks: Blocks, hints: Hints) -> Ties:
        """Ties each block to the last named page that ends within it or before, blocks before the first one to that.

        Text and tokens are taken to run evenly. Blocks too far behind the last named page are left as they were.
        Returns those that are new: what other workers do not know either.
        """
        indices, pages = hints.indices, hints.names
        if (sample := self._holdings.sample) > hashing.SAMPLE:
            kept = [pair for pair in zip(indices, pages, strict=True) if not pair[1] % sample]
            indices, pages = [index for index, _ in kept], [name for _, name in kept]
        new = Ties([], [])
        if not indices:
            return new
        scale, prompt_tokens = hints.page_tokens * blocks.text_bytes, hints.prompt_tokens
        page_ends = [-(-(index + 1) * scale // prompt_tokens) for index in indices]  # rounded up
        reach_pages = max(REACH_PAGES, indices[0] + 1, *map(operator.sub, indices[1:], indices))
        reached = bisect.bisect_right(blocks.ends, page_ends[-1] + reach_pages * scale // prompt_tokens)
        texts, use = self._texts, self._texts.move_to_end
        page_end, page = page_ends.pop(), pages[-1]
        for name, end in zip(blocks.names[:reached][::-1], blocks.ends[:reached][::-1], strict=True):
            while page_end > end and page_ends:
                page_end, page = page_ends.pop(), pages[len(page_ends)]
            if texts.get(name) != page:
                texts[name] = page
                new.blocks.append(name)
                new.pages.append(page)
            use(name)
        self._trim()
        return new

    def taught(self, ties: Ties) -> None:
        """What another worker learned. Blocks that were known stay as old as they were."""
        self._texts.update(zip(ties.blocks, ties.pages, strict=False))
        self._trim()

    def restore(self, slot: int, pages: Iterable[int]) -> None:
        """All pages that the node holds, in place of all that was known of it; its events follow from here on."""
        self._histories.clear(slot)
        self._holdings.replace(slot, pages)
        self._states[slot] = snapshots.IndexState.EXACT
        self._trim()

    def unknown_bytes(self, blocks: Blocks) -> int:
        """Of the text, what leads to no pages."""
        known = bisect.bisect_left(blocks.names, True, key=lambda name: name not in self._texts)
        return blocks.text_bytes - (blocks.ends[known - 1] if known else 0)

    def stored(self, slot: int, pages: Iterable[int]) -> None:
        self._holdings.stored(slot, pages)
        self._trim()

    def removed(self, slot: int, pages: Iterable[int]) -> None:
        self._holdings.removed(slot, pages)

    def cleared(self, slot: int) -> None:
        """The node's cache is empty."""
        self._holdings.clear(slot)

    def lost(self, slot: int) -> None:
        """Events are missing. What is known stays, as a guess, until `restore`."""
        self._states[slot] = snapshots.IndexState.DEGRADED

    def silent(self, slot: int) -> None:
        """The node sends no events: what is sent to it is its history from now on."""
        if self.state(slot) is not snapshots.IndexState.FALLBACK:
            self._holdings.clear(slot)
            self._states[slot] = snapshots.IndexState.FALLBACK

    def forget(self, slot: int) -> None:
        """The node is gone; the slot can be another's."""
        self._holdings.clear(slot)
        self._promises.forget(slot)
        self._histories.forget(slot)
        self._states.pop(slot, None)

    @property
    def _held_beside_texts_bytes(self) -> int:
        return self._holdings.held_bytes + self._promises.held_bytes + self._histories.held_bytes

    def _match_pages(self, names: Sequence[int], found: dict[int, int]) -> None:
        """All pages that the text leads to, from the last: one that was taught wrongly must not hide those before."""
        texts, pages = self._texts, self._holdings.masks
        known = bisect.bisect_left(names, True, key=lambda name: name not in texts)
        leading = list(map(texts.__getitem__, names[:known]))
        seen, last = 0, None
        for depth in range(known, 0, -1):
            page = leading[depth - 1]
            if page is not last:
                last = page
                if new := pages.get(page, 0) & ~seen:
                    seen |= new
                    for slot in _slots(new):
                        found[slot] = depth

    def _trim(self) -> None:
        allowed = (self._limit_bytes - self._held_beside_texts_bytes) // entries.ORDERED_BYTES
        while len(self._texts) > allowed:
            self._texts.popitem(last=False)


def _match_masks(masks: Mapping[int, int], names: Sequence[int], found: dict[int, int]) -> None:
    """By bisection, for tables where a node that has a block has all before it."""
    seen, depth = 0, len(names)

    def lacks(name: int) -> bool:
        return not masks.get(name, 0) & ~seen

    while (depth := bisect.bisect_left(names, True, hi=depth, key=lacks)) > 0:
        new = masks[names[depth - 1]] & ~seen
        seen |= new
        for slot in _slots(new):
            if found.get(slot, 0) < depth:
                found[slot] = depth


@functools.lru_cache(maxsize=4096)
def _slots(mask: int) -> tuple[int, ...]:
    return tuple(slot for slot in range(mask.bit_length()) if mask >> slot & 1)
