"""The prefix tree: every shareable page, found by the exact tokens that lead to it.

A node is one full block of tokens and the page with its KV. Children are keyed by their token bytes and
roots by the tenant's salt, so two different prefixes can't meet in a node whatever their hashes; a hash
only names the node in events. An open sequence counts one reference on every node of its chain, hence
references never grow towards the leaves, and below an unreferenced node all are unreferenced.

`idle` keeps the unreferenced nodes in the order of their release. A chain is released deepest first, and
using a node uses its ancestors, so every node stands after its descendants: the first of `idle` is always a
leaf, and the least recently used one. Eviction thus takes constant time, without clocks and without a heap.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Sequence as TokenIds

from drift_engine import hashing


class Node:
    __slots__ = ("block", "children", "hash", "page", "parent", "references")

    def __init__(self, parent: Node | None, block: bytes, page: int, hash_: int) -> None:
        self.parent = parent  # None: a root
        self.block = block  # token ids as int32 little-endian; a root's salt as UTF-8
        self.page = page  # -1: a root
        self.hash = hash_
        self.references = 0
        self.children: dict[bytes, Node] = {}


class PrefixTree:
    def __init__(self, page_tokens: int) -> None:
        self.page_tokens = page_tokens
        self.roots: dict[str, Node] = {}
        self.idle: OrderedDict[int, Node] = OrderedDict()
        """Unreferenced nodes by page, the first to evict first."""
        self.nodes = 0
        """Nodes with a page."""
        self._layout = struct.Struct(f"<{page_tokens}i")

    def block_at(self, token_ids: TokenIds[int], index: int) -> bytes:
        """The bytes of a full block. Raises struct.error for a token id beyond 32 bits."""
        start = index * self.page_tokens
        return self._layout.pack(*token_ids[start : start + self.page_tokens])

    def tokens_of(self, nodes: list[Node]) -> list[int]:
        """The token ids of the nodes' blocks, joined."""
        return [token_id for node in nodes for token_id in self._layout.unpack(node.block)]

    def match(self, token_ids: TokenIds[int], salt: str, most_blocks: int) -> list[Node]:
        """The longest cached chain of at most `most_blocks` blocks. Changes nothing."""
        root = self.roots.get(salt)
        return [] if root is None else self.match_below(root, token_ids, 0, most_blocks)

    def match_below(self, node: Node, token_ids: TokenIds[int], blocks: int, most_blocks: int) -> list[Node]:
        """What follows `node`, with which the first `blocks` blocks end."""
        chain: list[Node] = []
        pack, size = self._layout.pack, self.page_tokens
        for start in range(blocks * size, most_blocks * size, size):
            child = node.children.get(pack(*token_ids[start : start + size]))
            if child is None:
                break
            chain.append(child)
            node = child
        return chain

    def holds(self, node: Node) -> bool:
        """Whether it has not been evicted; then all that lead to it are there as well."""
        return node.parent is not None and node.parent.children.get(node.block) is node

    def acquire_root(self, salt: str) -> Node:
        root = self.roots.get(salt)
        if root is None:
            root = self.roots[salt] = Node(None, salt.encode(), -1, hashing.root_hash(salt))
        root.references += 1
        return root

    def release_root(self, root: Node) -> None:
        root.references -= 1
        self._drop_bare_root(root)

    def acquire(self, node: Node) -> None:
        if node.references == 0:
            del self.idle[node.page]
        node.references += 1

    def release(self, chain: list[Node]) -> None:
        """Strictly deepest first: `idle` depends on it."""
        for node in reversed(chain):
            node.references -= 1
            if node.references == 0:
                self.idle[node.page] = node

    def insert(self, parent: Node, block: bytes, page: int) -> Node:
        """A new child, with one reference, that owns `page` from now on."""
        node = Node(parent, block, page, hashing.block_hash(parent.hash, block))
        node.references = 1
        parent.children[block] = node
        self.nodes += 1
        return node

    def evict(self) -> Node:
        """Removes the least recently used leaf and returns it: its page is the caller's from now on.

        Raises KeyError where no node is idle.
        """
        _, node = self.idle.popitem(last=False)
        parent = node.parent
        assert parent is not None
        del parent.children[node.block]
        self.nodes -= 1
        if parent.parent is None:
            self._drop_bare_root(parent)
        return node

    def _drop_bare_root(self, root: Node) -> None:
        # Salts come from outside: a tenant that left must not stay in memory.
        if root.references == 0 and not root.children:
            del self.roots[root.block.decode()]
