"""What a router would keep of a node's cache: an index built from events alone."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from drift_engine import hashing, wire


def names(token_ids: list[int], salt: str, page_tokens: int) -> list[int]:
    """The names of the full blocks of a prompt, as `hashing` defines them."""
    chain = [hashing.root_hash(salt)]
    for end in range(page_tokens, len(token_ids) + 1, page_tokens):
        block = struct.pack(f"<{page_tokens}i", *token_ids[end - page_tokens : end])
        chain.append(hashing.block_hash(chain[-1], block))
    return chain[1:]


class KvIndex:
    """Insists that the events are coherent: parents before children, children gone before parents, no doubles."""

    def __init__(self) -> None:
        self.parents: dict[int, int | None] = {}

    def apply(self, events: Iterable[wire.KvEvent]) -> None:
        for event in events:
            match event:
                case wire.Stored():
                    assert len(event.token_ids) == len(event.block_hashes) * event.page_tokens
                    self._store(event)
                case wire.Removed():
                    for name in event.block_hashes:
                        del self.parents[name]
                        assert name not in self.parents.values(), "removed before its children"
                case wire.Cleared():
                    self.parents.clear()

    def _store(self, event: wire.Stored) -> None:
        parent = event.parent_hash
        assert parent is None or parent in self.parents
        for index, name in enumerate(event.block_hashes):
            assert name not in self.parents, "stored twice"
            if parent is not None:
                tokens = event.token_ids[index * event.page_tokens : (index + 1) * event.page_tokens]
                assert name == hashing.block_hash(parent, struct.pack(f"<{event.page_tokens}i", *tokens))
            self.parents[name] = parent
            parent = name
