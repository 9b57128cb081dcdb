"""Token ids of simulated prompts: two begin with as many equal tokens as the trace says, and no more."""

from __future__ import annotations

import array
import sys

from drift_engine.bench.traces import Arrival

TEXT_BYTES_PER_TOKEN = 4
"""Usual for English text and code with vocabularies of 100,000 words and more."""


def token_ids(arrival: Arrival) -> list[int]:
    """Of a recorded text its bytes, four at a time, so that texts with a common beginning share tokens.

    A block's tokens count up from its id: two blocks differ from their first token on, whatever their sizes, which is
    all that a prefix cache asks.
    """
    if arrival.text is not None:
        text = arrival.text.encode()
        words = array.array("i")
        words.frombytes(text + b" " * (-len(text) % TEXT_BYTES_PER_TOKEN))
        if sys.byteorder == "big":
            words.byteswap()
        return words.tolist()
    ids: list[int] = []
    for block in arrival.block_ids:
        ids.extend(range(block, block + arrival.block_tokens))
    return ids[: arrival.prompt_tokens]


def output_tokens(arrival: Arrival) -> int:
    """At least one."""
    if arrival.output_text is not None:
        return max(1, -(-len(arrival.output_text.encode()) // TEXT_BYTES_PER_TOKEN))
    return max(1, arrival.output_tokens)
