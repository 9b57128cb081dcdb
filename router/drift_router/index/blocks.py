"""The text of a prompt as a chain of named blocks: two prompts share as many names as they share text.

A name covers all text before it too, and what else the prompt's KV depends on, by way of the root. Only full blocks
have names. They are for finding, as `drift_engine.hashing` says of pages: nothing is trusted to them but an estimate.
"""

from __future__ import annotations

import bisect
import functools
import itertools
from typing import NamedTuple

import xxhash

LONGEST_TEXT_BYTES = 4 << 20
"""Text beyond has no names: a million tokens of it, the longest contexts that are served."""

SIZES = (
    [64] * (1024 // 64) + [256] * ((16384 - 1024) // 256) + [1024] * ((LONGEST_TEXT_BYTES - 16384) // 1024)
)
"""Bytes of a prompt's blocks, first to last. 64 up to 1 KiB, about one KV page of 16 tokens, for what many short
prompts share; 256 up to 16 KiB, as far as the page names that routers keep are apart (`hashing.SAMPLE`); 1024 beyond,
at most a sixteenth of the text before. 4,000 tokens are 76 blocks and 12,000 are 108, of which each costs just under
1 us per request, from splitting to learning the answer's pages."""

ENDS = list(itertools.accumulate(SIZES))
"""Where each of them ends."""

BEGINNING_BYTES = 2048
"""Of a prompt that is known by nothing else: some 500 tokens, longer than many system prompts, so that conversations
differ. Others take 100 characters, and send all users of an application to one node."""

_SLICES = [slice(end - size, end) for size, end in zip(SIZES, ENDS, strict=True)]


class Blocks(NamedTuple):
    names: list[int]
    ends: list[int]
    """In bytes from the text's start."""
    text_bytes: int
    """Of all of the text, the part without names included."""


@functools.lru_cache(maxsize=1024)  # a service has few models, tenants and sets of tools
def root(*parts: bytes) -> int:
    """What a chain begins with: tenant, model, tools, whatever the KV depends on that is not in the text."""
    return xxhash.xxh3_64_intdigest(b"".join(len(part).to_bytes(8, "little") + part for part in parts))


def split(text: bytes, root: int) -> Blocks:
    """`root` is of `root()`. 10 us for 16 KiB on a busy Zen 4 core: one hash a block, and no other work."""
    count = bisect.bisect_right(ENDS, len(text))
    digest, name = xxhash.xxh3_64_intdigest, root
    names = [name := digest(text[block], name) for block in _SLICES[:count]]
    return Blocks(names, ENDS[:count], len(text))


def beginning(text: bytes, root: int) -> int:
    """The key for consistent hashing: requests whose texts begin alike should meet on one node."""
    return xxhash.xxh3_64_intdigest(text[:BEGINNING_BYTES], root)
