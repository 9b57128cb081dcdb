"""Which KV pages a prompt has, as a header for a router that has not tokenized it.

    PAGE_TOKENS;PROMPT_TOKENS;CACHED_TOKENS;INDEX:NAME,INDEX:NAME,...

Names (`drift_engine.hashing`) in lower-case hexadecimal digits, each with the position of its page in the prompt: a
sample of the full ones, the same whoever takes it.
"""

from __future__ import annotations

from collections.abc import Sequence

from drift_engine import hashing

MAX_PAGES = 32
"""In one header: a prefix is known to a thirty-second of the prompt, and 128 would take the router 60 us to read and
learn at 16 KiB of text, most of what the request may cost it (`benchmarks/router/index.py`)."""


def header(token_ids: Sequence[int], salt: str, page_tokens: int, cached_tokens: int) -> bytes:
    """0.4 ms for a prompt of 12,000 tokens."""
    named = [
        (index, name)
        for index, name in enumerate(hashing.names(token_ids, salt, page_tokens))
        if name % hashing.SAMPLE == 0
    ]
    pages = ",".join(f"{index}:{name:x}" for index, name in _thinned(named))
    return f"{page_tokens};{len(token_ids)};{cached_tokens};{pages}".encode()


def _thinned(pages: Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:
    """At most MAX_PAGES of them, evenly spread; the last one, which leads furthest, stays."""
    if len(pages) <= MAX_PAGES:
        return pages
    return [pages[(place + 1) * len(pages) // MAX_PAGES - 1] for place in range(MAX_PAGES)]
