"""Which text leads to which pages on a vLLM node: when it is worth a question, and what the answer teaches.

A Drift node says so with its answer (`index.hints`); a vLLM node has to be asked for a prompt's tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from drift_engine import hashing
from drift_router.index.aliases import Aliases
from drift_router.index.hints import MAX_PROMPT_TOKENS, Hints

LEAST_BYTES = 1024
"""Of text that leads nowhere yet: some 250 tokens, 10 ms to compute and below 1 ms to count. Estimate."""

LEAST_SHARE = 1 / 8
"""Of the prompt. A conversation is then asked about each time that it has grown by an eighth, so that all questions
together are nine times its length however many turns it has, and an eighth of it at most goes unseen."""


class Question(NamedTuple):
    url: str
    """Of the node's API."""
    document: bytes
    authorization: str
    """As the client showed it; empty: nothing."""
    learned: Callable[[list[int]], None]
    """Gets the token ids."""


def worth(unknown_bytes: int, prompt_bytes: int) -> bool:
    return unknown_bytes >= max(LEAST_BYTES, LEAST_SHARE * prompt_bytes)


def hints(token_ids: list[int], model: str, aliases: Aliases) -> Hints | None:
    """As of a Drift node. None: the node has not told yet how many tokens its pages have, or there is no page."""
    page_tokens = aliases.page_tokens
    if not page_tokens or not page_tokens <= len(token_ids) <= MAX_PROMPT_TOKENS:
        return None
    named = [
        (index, name)
        for index, name in enumerate(hashing.names(token_ids, aliases.salt(model), page_tokens))
        if not name % hashing.SAMPLE
    ]
    return Hints(page_tokens, len(token_ids), 0, [index for index, _ in named], [name for _, name in named])
