"""What one forward pass computes, as the sums that its time depends on."""

from __future__ import annotations

import enum
from collections.abc import Iterable

import msgspec


class Kind(enum.StrEnum):
    """Which phases a pass serves."""

    DECODE = "decode"
    PREFILL = "prefill"
    FUSED = "fused"


class Load(msgspec.Struct, frozen=True, gc=False):
    """The work of one pass. Loads add up: decode rows and prefill chunks in one pass are a fused load.

    A decode row computes one token and reads its context. A prefill row computes n new tokens behind r reused ones:
    tokens whose KV is already there, from the prefix cache or from earlier chunks.
    """

    decode_rows: int = 0
    decode_context_tokens: int = 0  # summed over the decode rows
    new_tokens: int = 0  # sum of n over the prefill rows
    new_squared: int = 0  # sum of n * n
    new_times_reused: int = 0  # sum of n * r
    prefill_rows: int = 0

    @classmethod
    def decode(cls, rows: int, context_tokens: int) -> Load:
        """`rows` decode rows with `context_tokens` in all."""
        return cls(decode_rows=rows, decode_context_tokens=context_tokens)

    @classmethod
    def prefill(cls, chunks: Iterable[tuple[int, int]]) -> Load:
        """One row for every pair of (new tokens, reused tokens)."""
        rows = new_tokens = new_squared = new_times_reused = 0
        for new, reused in chunks:
            rows += 1
            new_tokens += new
            new_squared += new * new
            new_times_reused += new * reused
        return cls(0, 0, new_tokens, new_squared, new_times_reused, rows)

    def __add__(self, other: Load) -> Load:
        return Load(
            self.decode_rows + other.decode_rows,
            self.decode_context_tokens + other.decode_context_tokens,
            self.new_tokens + other.new_tokens,
            self.new_squared + other.new_squared,
            self.new_times_reused + other.new_times_reused,
            self.prefill_rows + other.prefill_rows,
        )

    def __bool__(self) -> bool:
        """Whether there is anything to compute."""
        return bool(self.decode_rows or self.prefill_rows)

    @property
    def kind(self) -> Kind:
        """An empty load counts as decode."""
        if not self.prefill_rows:
            return Kind.DECODE
        return Kind.FUSED if self.decode_rows else Kind.PREFILL
