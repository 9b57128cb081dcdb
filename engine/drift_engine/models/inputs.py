"""One forward's packed inputs: what the core's batch builder hands to the model.

Sequences are packed one after the other without padding between them. The first `num_decode` sequences have
exactly one query token each; the prefill chunks follow.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

# T packed tokens, B sequences, M pages per sequence (padded table width)


@dataclass(frozen=True)
class ForwardInputs:
    """Tensors live on the model's device; the plain numbers are known to the host, so no launch waits for it."""

    token_ids_T: torch.Tensor
    """int64."""
    positions_T: torch.Tensor
    """int32, from 0 within each sequence."""
    slots_T: torch.Tensor
    """int32, page * page_tokens + offset; -1 is written nowhere."""
    query_starts_B1: torch.Tensor
    """int32 [B + 1]: the tokens of sequence b are [query_starts[b], query_starts[b + 1])."""
    context_lens_B: torch.Tensor
    """int32: tokens in the KV store once this forward has written its own."""
    page_table_BM: torch.Tensor
    """int32: each sequence's pages in order; the rest of a row is any valid page."""
    num_decode: int
    max_query_tokens: int
    """Of the prefill chunks; 0 where there are none."""
    max_decode_context_tokens: int
    max_prefill_context_tokens: int

    @property
    def num_prefill(self) -> int:
        """Sequences that bring a prefill chunk."""
        return self.context_lens_B.shape[0] - self.num_decode

    # Cut once per forward instead of once per layer: a slice costs 1-2 us of host time.

    @cached_property
    def decode_context_lens_B(self) -> torch.Tensor:
        return self.context_lens_B[: self.num_decode]

    @cached_property
    def decode_page_table_BM(self) -> torch.Tensor:
        return self.page_table_BM[: self.num_decode]

    @cached_property
    def prefill_query_starts_B1(self) -> torch.Tensor:
        return self.query_starts_B1[self.num_decode :] - self.num_decode

    @cached_property
    def prefill_context_lens_B(self) -> torch.Tensor:
        return self.context_lens_B[self.num_decode :]

    @cached_property
    def prefill_page_table_BM(self) -> torch.Tensor:
        return self.page_table_BM[self.num_decode :]
