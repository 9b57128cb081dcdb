"""One request's share of the cache: its page table and its place in the prefix tree."""

from __future__ import annotations

from drift_engine.cache.tree import Node


class Sequence:
    """Made by `KvCache.open` and changed only by `KvCache`; the scheduler reads `pages` and the counts of tokens.

    Who owns which tokens, where cached <= published <= written <= len(pages) * page_tokens:

        [0, cached)           the tree's; read only, one reference on each node of `chain`
        [cached, published)   written by us and given to the tree; read only since, referenced likewise
        [published, written)  ours: less than a page, or all that came since another sequence published the same
                              block first. `close` offers the full pages of it (`pending`) to the tree once more.
        [written, reserved)   ours, freed at the end whatever happens

    A sequence refers to no node whose page is not in its own page table. Else two that compute the same prompt
    would pin it twice, and the one that stays could not grow to the length that the pool was made for.
    """

    __slots__ = (
        "cached_tokens",
        "chain",
        "pages",
        "pending",
        "publish_at_tokens",
        "reserved_tokens",
        "root",
        "salt",
    )

    def __init__(self, salt: str, root: Node, chain: list[Node], page_tokens: int) -> None:
        self.salt = salt
        self.pages = [node.page for node in chain]
        """Page of each `page_tokens` tokens, in order. Only ever extended."""
        self.cached_tokens = self.reserved_tokens = len(chain) * page_tokens
        """`cached_tokens`: what `open` found. `reserved_tokens`: what `pages` can hold."""
        self.publish_at_tokens = self.reserved_tokens + page_tokens
        """With fewer tokens written than this, `publish` has nothing to do."""
        self.root = root
        self.chain = chain
        """The node of each published block: chain[i].page == pages[i]."""
        self.pending: list[bytes] = []
        """The full blocks written behind `chain`: empty as long as no other sequence was first with one."""
