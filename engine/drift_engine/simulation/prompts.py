"""Token ids of simulated prompts: equal where a trace says that prompts are equal, and nowhere else."""

from __future__ import annotations

import array
import sys

from drift_engine.bench.traces import Arrival

TEXT_BYTES_PER_TOKEN = 4
"""Usual for English text and code with vocabularies of 100,000 words and more."""

MOST_TOKEN_IDS = 2**31 - 1
"""Blocks of the prefix cache hold signed 32-bit ids. Ids come again after so many, when their pages are long gone."""


class Prompts:
    """Gives every block of a workload token ids of its own."""

    def __init__(self) -> None:
        self._starts: dict[tuple[int, int], int] = {}
        self._next = 1

    def token_ids(self, arrival: Arrival) -> list[int]:
        """Of a recorded text its bytes, four at a time, so that texts with a common beginning share tokens."""
        if arrival.text is not None:
            return _words(arrival.text)
        ids: list[int] = []
        size = arrival.block_tokens
        for block in arrival.block_ids:
            start = self._starts.get((block, size))
            if start is None:
                start = self._next = 1 if self._next + size > MOST_TOKEN_IDS else self._next
                self._starts[block, size] = start
                self._next += size
            ids.extend(range(start, start + size))
        return ids[: arrival.prompt_tokens]


def _words(text: str) -> list[int]:
    data = text.encode()
    words = array.array("i")
    words.frombytes(data + b" " * (-len(data) % TEXT_BYTES_PER_TOKEN))
    if sys.byteorder == "big":
        words.byteswap()
    return words.tolist()


def output_tokens(arrival: Arrival) -> int:
    """At least one."""
    if arrival.output_text is not None:
        return max(1, -(-len(arrival.output_text.encode()) // TEXT_BYTES_PER_TOKEN))
    return max(1, arrival.output_tokens)
