"""Runs a model over paged KV without the engine's loop: what a test needs to hold one forward against another."""

from __future__ import annotations

import random

import torch

from drift_engine.models.inputs import ForwardInputs
from drift_engine.models.kv_store import KvStore
from drift_engine.models.transformer import Transformer

_PAGES = 256


class PagedRun:
    """Sequences by number, each with its own pages, handed out in a shuffled order."""

    def __init__(self, model: Transformer, *, page_tokens: int = 16, page_seed: int = 0) -> None:
        self.model = model
        self.kv = KvStore.allocate(model.config, _PAGES, page_tokens, model.device, model.dtype)
        self.lengths: dict[int, int] = {}
        self._free = random.Random(page_seed).sample(range(_PAGES), _PAGES)
        self._pages: dict[int, list[int]] = {}
        self._last: dict[int, torch.Tensor] = {}

    def prefill(self, sequence: int, token_ids: list[int]) -> torch.Tensor:
        """Logits of every token of one chunk, [tokens, vocabulary]."""
        inputs = self._inputs({sequence: token_ids})
        logits = self._forward(inputs, torch.arange(len(token_ids)), [])
        self._last[sequence] = logits[-1]
        return logits

    def decode(self, token_ids: dict[int, int]) -> dict[int, torch.Tensor]:
        return self.step({sequence: [token_id] for sequence, token_id in token_ids.items()})

    def last_logits(self, sequence: int) -> torch.Tensor:
        return self._last[sequence].clone()

    def step(self, chunks: dict[int, list[int]], cuts: list[int] | None = None) -> dict[int, torch.Tensor]:
        """One mixed forward, cut at the given layers; the logits of each chunk's last token."""
        ordered = dict(sorted(chunks.items(), key=lambda item: len(item[1]) != 1))
        inputs = self._inputs(ordered)
        logits = self._forward(inputs, inputs.query_starts_B1[1:].long() - 1, cuts or [])
        self._last |= dict(zip(ordered, logits, strict=True))
        return {sequence: self.last_logits(sequence) for sequence in ordered}

    def _forward(self, inputs: ForwardInputs, rows_B: torch.Tensor, cuts: list[int]) -> torch.Tensor:
        x_TE, residual_TE = self.model.embed(inputs), None
        start = 0
        for stop in [*cuts, self.model.config.num_layers]:
            if stop > start:
                x_TE, residual_TE = self.model.layers(
                    x_TE, residual_TE, inputs, self.kv, start, stop, lane_sms=1
                )
            start = stop
        return self.model.logits(x_TE, residual_TE, rows_B, lane_sms=1)

    def _inputs(self, chunks: dict[int, list[int]]) -> ForwardInputs:
        """Chunks of one token come first and are decoded."""
        positions: list[int] = []
        slots: list[int] = []
        starts, size = [0], self.kv.page_tokens
        for sequence, token_ids in chunks.items():
            first = self.lengths.get(sequence, 0)
            self.lengths[sequence] = last = first + len(token_ids)
            pages = self._pages.setdefault(sequence, [])
            while len(pages) * size < last:
                pages.append(self._free.pop())
            positions += range(first, last)
            slots += [pages[p // size] * size + p % size for p in range(first, last)]
            starts.append(starts[-1] + len(token_ids))
        num_decode = sum(len(token_ids) == 1 for token_ids in chunks.values())
        contexts = [self.lengths[sequence] for sequence in chunks]
        width = max(len(self._pages[sequence]) for sequence in chunks)
        table = [self._pages[s] + [0] * (width - len(self._pages[s])) for s in chunks]
        return ForwardInputs(
            token_ids_T=torch.tensor([i for token_ids in chunks.values() for i in token_ids]),
            positions_T=torch.tensor(positions, dtype=torch.int32),
            slots_T=torch.tensor(slots, dtype=torch.int32),
            query_starts_B1=torch.tensor(starts, dtype=torch.int32),
            context_lens_B=torch.tensor(contexts, dtype=torch.int32),
            page_table_BM=torch.tensor(table, dtype=torch.int32),
            num_decode=num_decode,
            max_query_tokens=max((len(t) for t in chunks.values() if len(t) > 1), default=0),
            max_decode_context_tokens=max(contexts[:num_decode], default=0),
            max_prefill_context_tokens=max(contexts[num_decode:], default=0),
        )
