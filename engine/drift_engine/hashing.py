"""The name of a cached block: the one definition that nodes, routers and peers share.

A block is `page_tokens` consecutive token ids that start at a multiple of `page_tokens`. Its name covers all
that its KV depends on: the tenant's salt, every token before it and its own tokens.

    root  = XXH3-64(salt as UTF-8, seed 0)
    block = XXH3-64(parent as 8 bytes little-endian, then each token id as int32 little-endian; seed 0)

`parent` is the name of the block before it in the prompt, or `root` for the first. Names are unsigned 64-bit
integers. Only full blocks have names. A `wire.Stored` event with `parent_hash` None starts at a root.

Names are for finding, not for trusting: the hash is not cryptographic, so a node compares the tokens
themselves, and a router that is misled loses a cache hit and nothing else.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Sequence

import xxhash

SAMPLE = 4
"""Routers keep one page name in four, chosen by the name itself so that all parties agree."""


def root_hash(salt: str) -> int:
    """The parent of a tenant's first blocks."""
    return xxhash.xxh3_64_intdigest(salt.encode())


def block_hash(parent_hash: int, block: bytes) -> int:
    """`block` is the block's token ids as int32 little-endian."""
    return xxhash.xxh3_64_intdigest(parent_hash.to_bytes(8, "little") + block)


def names(token_ids: Sequence[int], salt: str, page_tokens: int) -> Iterator[int]:
    """Of a prompt's full blocks, in order."""
    tokens = array("i", token_ids)
    if sys.byteorder == "big":
        tokens.byteswap()
    block_bytes, name = page_tokens * tokens.itemsize, root_hash(salt)
    joined = tokens.tobytes()
    for start in range(0, len(joined) - block_bytes + 1, block_bytes):
        name = block_hash(name, joined[start : start + block_bytes])
        yield name
