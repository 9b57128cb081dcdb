"""Pages for sequences: free ones, cached ones and shared ones, always adding up to the whole.

The scheduler drives it, from one thread; the model's KV store holds what the pages mean. A page is in
exactly one of four places: free, cached and idle (evictable), cached and referenced by open sequences, or
private to one of them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence as TokenIds
from typing import NamedTuple

from drift_engine import wire
from drift_engine.cache import integrity
from drift_engine.cache.sequence import Sequence
from drift_engine.cache.tree import Node, PrefixTree
from drift_engine.errors import CapacityError


class Match(NamedTuple):
    """A cached prefix: its tokens, and how many of its pages are evictable until a sequence takes them."""

    tokens: int
    idle_pages: int
    last: Node | None = None
    """Its last page, from which a later match of the same tokens goes on."""


class OutOfPages(CapacityError):  # noqa: N818 - the scheduler's cue to preempt, not a fault
    """A reservation needs more pages than are free or evictable. Nothing was taken."""


class KvCache:
    """`pages` pages of `page_tokens` tokens each; without `prefix` nothing is shared, kept or told.

    Without `tell` there are no events, which somebody has to take after every step.
    """

    def __init__(self, pages: int, page_tokens: int, *, prefix: bool = True, tell: bool = True) -> None:
        if pages < 1 or page_tokens < 1:
            raise ValueError(f"a cache needs at least 1 page of 1 token, got {pages} of {page_tokens}")
        self.pages_total = pages
        self.page_tokens = page_tokens
        self.prefix = prefix
        self._tell = tell
        self.queried_tokens_total = 0
        """Tokens of opened sequences."""
        self.hit_tokens_total = 0
        """Those of them that were cached."""
        self.version = 0
        """Changes with whatever `match` could answer."""
        self.evicted_pages_total = 0
        """Cached pages given up for a reservation; flushed ones do not count."""
        self._free = list(range(pages - 1, -1, -1))
        self._tree = PrefixTree(page_tokens)
        self._sequences: set[Sequence] = set()
        self._events: list[wire.KvEvent] = []

    @property
    def pages_free(self) -> int:
        return len(self._free)

    @property
    def pages_evictable(self) -> int:
        """Cached, and no open sequence uses them."""
        return len(self._tree.idle)

    @property
    def pages_held(self) -> int:
        """By open sequences, shared pages counted once."""
        return self.pages_total - len(self._free) - len(self._tree.idle)

    @property
    def pages_used(self) -> int:
        """Held or cached."""
        return self.pages_total - len(self._free)

    def match(self, token_ids: TokenIds[int], salt: str, known: Match | None = None) -> Match:
        """What `open` would find cached now: whole pages, and always fewer than all tokens.

        `known` is an earlier answer for these tokens, or for fewer of them: what it found is not looked up again.
        """
        last, blocks = None, 0
        if known is not None and known.last is not None and self._tree.holds(known.last):
            last, blocks = known.last, known.tokens // self.page_tokens
            chain = self._tree.match_below(last, token_ids, blocks, self._most_blocks(token_ids))
        else:
            chain = self._match(token_ids, salt)
        if chain:
            last = chain[-1]
        idle_pages, node = 0, last
        while node is not None and node.parent is not None and node.references == 0:
            idle_pages, node = idle_pages + 1, node.parent
        return Match((blocks + len(chain)) * self.page_tokens, idle_pages, last)

    def open(self, token_ids: TokenIds[int], salt: str) -> Sequence:
        """Starts a sequence that holds the cached prefix of `token_ids`: its first `cached_tokens` tokens.

        Every opened sequence must be closed. Opening and closing makes the prefix the most recently used.
        """
        chain = self._match(token_ids, salt)
        for node in chain:
            self._tree.acquire(node)
        sequence = Sequence(salt, self._tree.acquire_root(salt), chain, self.page_tokens)
        if not self.prefix:
            sequence.publish_at_tokens = sys.maxsize
        self._sequences.add(sequence)
        self.version += 1
        self.queried_tokens_total += len(token_ids)
        self.hit_tokens_total += sequence.cached_tokens
        return sequence

    def can_reserve(self, sequence: Sequence, tokens: int) -> bool:
        """Whether `reserve` would succeed now."""
        if tokens <= sequence.reserved_tokens:
            return True
        return self._missing_pages(sequence, tokens) <= len(self._free) + len(self._tree.idle)

    def reserve(self, sequence: Sequence, tokens: int) -> None:
        """Extends the page table to cover `tokens` tokens in all.

        Evicts the least recently used leaves if need be. All or nothing: raises OutOfPages and changes
        nothing where `can_reserve` says no.
        """
        if tokens <= sequence.reserved_tokens:
            return
        assert sequence in self._sequences, "the sequence is closed"
        missing = self._missing_pages(sequence, tokens)
        if missing > len(self._free) + len(self._tree.idle):
            raise OutOfPages(
                f"{tokens} tokens need {missing} more KV pages: {len(self._free)} free, "
                f"{len(self._tree.idle)} evictable, {self.pages_total} in all"
            )
        if missing > len(self._free):
            count = missing - len(self._free)
            self._evict(count)
            self.evicted_pages_total += count
        free = self._free
        sequence.pages.extend(reversed(free[-missing:]))
        del free[-missing:]
        sequence.reserved_tokens += missing * self.page_tokens

    def publish(self, sequence: Sequence, token_ids: TokenIds[int], written: int) -> None:
        """Says that the KV of the sequence's first `written` tokens is in its pages, for good.

        `token_ids` are the sequence's tokens from the start, at least `written`. Full pages become
        shareable, and nobody may write them again. Call it only after the step that wrote them is complete
        on the device.
        """
        if written < sequence.publish_at_tokens:
            return
        assert sequence in self._sequences, "the sequence is closed"
        assert written <= sequence.reserved_tokens, "tokens written beyond the reserved pages"
        assert written <= len(token_ids), "more tokens written than known"
        tree, chain, pending = self._tree, sequence.chain, sequence.pending
        node = chain[-1] if chain else sequence.root
        stored: list[Node] = []
        for index in range(len(chain) + len(pending), written // self.page_tokens):
            block = tree.block_at(token_ids, index)
            if pending or block in node.children:
                pending.append(block)
            else:
                node = tree.insert(node, block, sequence.pages[index])
                chain.append(node)
                stored.append(node)
        sequence.publish_at_tokens = (len(chain) + len(pending) + 1) * self.page_tokens
        self._tell_stored(stored)

    def close(self, sequence: Sequence) -> None:
        """Ends a sequence: its private pages are free, its published ones stay cached until evicted."""
        self._sequences.remove(sequence)
        self.version += 1
        tree, chain = self._tree, sequence.chain
        private = sequence.pages[len(chain) :]
        node = chain[-1] if chain else sequence.root
        stored: list[Node] = []
        for page, block in zip(private, sequence.pending, strict=False):
            child = node.children.get(block)
            if child is None:
                child = tree.insert(node, block, page)
                stored.append(child)
            else:
                tree.acquire(child)
                self._free.append(page)
            chain.append(child)
            node = child
        self._free.extend(private[len(sequence.pending) :])
        self._tell_stored(stored)
        tree.release(chain)
        tree.release_root(sequence.root)
        # A closed sequence is empty, so that a late use of it finds no page of somebody else.
        sequence.pages, sequence.chain, sequence.pending, sequence.reserved_tokens = [], [], [], 0

    def flush(self) -> None:
        """Forgets every cached page that no open sequence uses."""
        if not self._tree.idle:
            return
        if len(self._tree.idle) == self._tree.nodes:
            pending = len(self._events)
            self._evict(len(self._tree.idle))
            self._events[pending:] = [wire.Cleared()] if self._tell else []
        else:
            self._evict(len(self._tree.idle))

    def take_events(self) -> list[wire.KvEvent]:
        """What changed since the last call, in order. Taken after every step: that bounds the list."""
        events, self._events = self._events, []
        return events

    def check_integrity(self) -> None:
        """Raises AssertionError with all the numbers when the books do not balance.

        Visits every page: for idle times and tests.
        """
        integrity.check(self.pages_total, self._free, self._tree, self._sequences)

    def _match(self, token_ids: TokenIds[int], salt: str) -> list[Node]:
        return self._tree.match(token_ids, salt, self._most_blocks(token_ids)) if self.prefix else []

    def _most_blocks(self, token_ids: TokenIds[int]) -> int:
        # At least one token stays to be computed: without it there are no logits to sample from.
        return (len(token_ids) - 1) // self.page_tokens

    def _missing_pages(self, sequence: Sequence, tokens: int) -> int:
        return -(-tokens // self.page_tokens) - len(sequence.pages)

    def _tell_stored(self, nodes: list[Node]) -> None:
        """`nodes` are one run of a chain: whatever is below a new node is new."""
        if not nodes or not self._tell:
            return
        self.version += 1
        parent = nodes[0].parent
        assert parent is not None
        self._events.append(
            wire.Stored(
                block_hashes=[node.hash for node in nodes],
                parent_hash=None if parent.parent is None else parent.hash,
                token_ids=self._tree.tokens_of(nodes),
                page_tokens=self.page_tokens,
            )
        )

    def _evict(self, count: int) -> None:
        self.version += 1
        hashes: list[int] = []
        for _ in range(count):
            node = self._tree.evict()
            self._free.append(node.page)
            hashes.append(node.hash)
        if not self._tell:
            return
        last = self._events[-1] if self._events else None
        if isinstance(last, wire.Removed):
            last.block_hashes.extend(hashes)
        else:
            self._events.append(wire.Removed(block_hashes=hashes))
