"""What one engine's own block hashes stand for: the names that its pages have on all nodes (`drift_engine.hashing`).

vLLM's hashes are salted by each process, so that nobody else can compute them; but with every block it names the
tokens in it and the block before. From these come the same names that a Drift node gives, and one text leads to all.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator

from drift_engine import hashing
from drift_router.index.engine_events import FULL_ATTENTION, GPU, Cleared, Event, Hash, Removed, Stored
from drift_router.index.events import Malformed
from drift_router.index.hints import MAX_PAGE_TOKENS

MAX_BLOCKS = 1 << 20
"""Of one node: 16 million tokens in blocks of 16, 16 times an H200's beside 8 billion parameters; 150 MB."""

MAX_ADAPTERS = 1024
"""Of one node, that are told apart."""

_TOKENS_END = 1 << 31


class Aliases:
    """Of one engine process. Counts copies: vLLM tells of a block as often as it keeps it."""

    def __init__(self) -> None:
        self.page_tokens = 0
        """0: nothing was stored yet."""
        self._names: dict[Hash, int] = {}
        self._copies: dict[Hash, int] = {}  # more than the first
        self._group: int | None = None
        self._adapters: set[str] = set()

    @property
    def names(self) -> Iterable[int]:
        """Of all blocks that the engine holds."""
        return self._names.values()

    def salt(self, model: str) -> str:
        """What names of pages begin with where a request asks for `model`: an adapter's name, or nothing."""
        return model if model in self._adapters else ""

    def apply(self, events: Iterable[Event]) -> Iterator[tuple[Event, list[int]]]:
        """Each event that changes something, with the names of its pages. Raises Malformed."""
        for event in events:
            match event:
                case Stored():
                    if names := self._stored(event):
                        yield event, names
                case Removed():
                    if names := self._removed(event):
                        yield event, names
                case Cleared():
                    self._names.clear()
                    self._copies.clear()
                    yield event, []

    def _stored(self, event: Stored) -> list[int]:
        """A block whose name can't be told (an image in it, a salt, an unknown parent) ends the chain."""
        if not self._followed(event):
            return []
        if event.parent_block_hash is None:
            adapter = event.lora_name or ""
            if len(self._adapters) < MAX_ADAPTERS and adapter:
                self._adapters.add(adapter)
            parent: int | None = hashing.root_hash(adapter)
        else:
            parent = self._names.get(event.parent_block_hash)
        if parent is None:
            return []
        self.page_tokens, made = event.block_size, []
        extra_keys = event.extra_keys or [None] * len(event.block_hashes)
        blocks = _blocks(event.token_ids, event.block_size)
        for block_hash, extra, tokens in zip(event.block_hashes, extra_keys, blocks, strict=False):
            if extra and tuple(extra) != (event.lora_name,):
                break
            parent = hashing.block_hash(parent, tokens)
            if block_hash in self._names:
                self._copies[block_hash] = self._copies.get(block_hash, 0) + 1
            else:
                self._names[block_hash] = parent
                made.append(parent)
        if len(self._names) > MAX_BLOCKS:
            raise Malformed(f"it tells of more than {MAX_BLOCKS} blocks")
        return made

    def _followed(self, event: Stored) -> bool:
        if event.medium not in GPU or event.kv_cache_spec_kind not in FULL_ATTENTION:
            return False
        if not 1 <= event.block_size <= MAX_PAGE_TOKENS:
            return False
        if event.lora_id is not None and event.lora_name is None:
            return False  # of a version that does not say which adapter
        if self._group is None:
            self._group = event.group_idx
        return event.group_idx == self._group

    def _removed(self, event: Removed) -> list[int]:
        if event.medium not in GPU or event.group_idx != self._group:
            return []
        gone = []
        for block_hash in event.block_hashes:
            if copies := self._copies.pop(block_hash, 0):
                if copies > 1:
                    self._copies[block_hash] = copies - 1
            elif (name := self._names.pop(block_hash, None)) is not None:
                gone.append(name)
        return gone


def _blocks(token_ids: list[int], block_tokens: int) -> Iterator[bytes]:
    """Full blocks, as `hashing.block_hash` takes them. Raises Malformed for what is no token."""
    if token_ids and not 0 <= min(token_ids) <= max(token_ids) < _TOKENS_END:
        raise Malformed("a token id is no unsigned 31-bit integer")
    tokens = array("i", token_ids)
    if sys.byteorder == "big":
        tokens.byteswap()
    joined, block_bytes = tokens.tobytes(), block_tokens * tokens.itemsize
    for start in range(0, len(joined) - block_bytes + 1, block_bytes):
        yield joined[start : start + block_bytes]
