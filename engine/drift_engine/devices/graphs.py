"""Decode passes as CUDA graphs: one per batch bucket, captured when a batch first needs it.

A decode step of an 8B model is some 300 launches, each a few microseconds of host time; a graph is one. It
computes on fixed tensors, so a step copies its rows into them first and pads up to the bucket with rows that write
nothing and read nothing. Grids and split counts follow from the bucket and the longest context that the node
serves, never from the batch's contents. One `DecodeGraphs` belongs to one lane: kernels keep the SMs that they were
captured on, so graphs are keyed by {lane, bucket}. Sampling stays outside: it changes with what requests ask for.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from drift_engine.devices.base import Pass
from drift_engine.devices.packing import Packed
from drift_engine.devices.runner import Runner
from drift_engine.devices.staging import Put, align
from drift_engine.devices.streams import Graph
from drift_engine.models.inputs import ForwardInputs

# B rows, R rows of the largest bucket rounded up, M pages of the longest sequence, V vocabulary

SMALL_BUCKETS = (1, 2, 4)
BUCKET_STEP = 8
"""Few requests are common and padding weighs most there; beyond, eight rows are half of the smallest tensor-core
tile, so that up to seven rows of padding cost next to nothing. Estimate, not yet measured."""

PADDING = np.array([[0], [0], [-1], [0]], dtype=np.int32)
"""Token, position, slot, context length of a row that is not there: it writes no slot and reads no context."""

FIELDS = len(PADDING)


def buckets(max_rows: int) -> tuple[int, ...]:
    """Batch sizes that get a graph, ascending; the last takes `max_rows`."""
    assert max_rows >= 1, max_rows
    steps = [*SMALL_BUCKETS, *range(BUCKET_STEP, max_rows, BUCKET_STEP), max_rows]
    return tuple(sorted({rows for rows in steps if rows <= max_rows}))


def bucket_of(rows: int, sizes: tuple[int, ...]) -> int | None:
    """The smallest bucket that holds `rows`; None above the largest."""
    index = bisect_left(sizes, rows)
    return sizes[index] if index < len(sizes) else None


@dataclass(frozen=True, slots=True)
class StagedDecode:
    """A decode pass on its way to the device, padded to its bucket."""

    rows: int
    rows_4B: torch.Tensor
    page_table_BM: torch.Tensor  # of the real rows


class _Fixed:
    """The tensors that all graphs of a lane compute on."""

    def __init__(self, runner: Runner, max_rows: int, max_context_tokens: int) -> None:
        device, vocab = runner.model.device, runner.model.config.vocab_size
        width = -(-max_context_tokens // runner.kv.page_tokens)
        # Fields lie one after the other; a start at a multiple of 16 bytes keeps one variant of each kernel.
        self.rows_4R = torch.zeros((FIELDS, align(max_rows, 4)), dtype=torch.int32, device=device)
        self.page_table_RM = torch.zeros((max_rows, width), dtype=torch.int32, device=device)
        self.logits_RV = torch.zeros((max_rows, vocab), dtype=torch.float32, device=device)
        self.order_R = torch.arange(max_rows, dtype=torch.int64, device=device)
        self.starts_R1 = torch.arange(max_rows + 1, dtype=torch.int32, device=device)


class DecodeGraphs:
    """`takes` says which passes are its own; `stage` packs one and `run` computes it inside the stream's scope."""

    def __init__(
        self,
        runner: Runner,
        capture: Callable[[Callable[[], None]], Graph],
        *,
        max_rows: int,
        max_context_tokens: int,
        lane_sms: int,
    ) -> None:
        self._runner = runner
        self._capture = capture
        self._sizes = buckets(max_rows)
        self._max_context_tokens = max_context_tokens
        self._lane_sms = lane_sms
        self._graphs: dict[int, Graph] = {}
        self._fixed: _Fixed | None = None  # made when the lane first decodes: many lanes never do

    @property
    def captured(self) -> tuple[int, ...]:
        """Buckets that have a graph."""
        return tuple(sorted(self._graphs))

    def takes(self, work: Pass) -> bool:
        """Pure decode passes up to the largest bucket; everything else runs eagerly."""
        return not work.prefill and 1 <= len(work.decode) <= self._sizes[-1]

    def stage(self, packed: Packed, put: Put) -> StagedDecode:
        rows = packed.num_decode
        bucket = bucket_of(rows, self._sizes)
        assert bucket is not None, f"{rows} rows are above the largest bucket, {self._sizes[-1]}"
        assert len(packed.drawing_D) == rows, "every decode row draws"
        assert packed.max_decode_context_tokens <= self._max_context_tokens, packed.max_decode_context_tokens
        padded_4B = np.repeat(PADDING, bucket, axis=1)
        padded_4B[0, :rows] = packed.token_ids_T
        padded_4B[1, :rows] = packed.positions_T
        padded_4B[2, :rows] = packed.slots_T
        padded_4B[3, :rows] = packed.context_lens_B
        return StagedDecode(rows, put(padded_4B), put(packed.page_table_BM))

    def run(self, staged: StagedDecode) -> torch.Tensor:
        """logits_BV of the real rows; overwritten by the next run."""
        if self._fixed is None:
            self._fixed = _Fixed(self._runner, self._sizes[-1], self._max_context_tokens)
        fixed, rows, bucket = self._fixed, staged.rows, staged.rows_4B.shape[1]
        fixed.rows_4R[:, :bucket].copy_(staged.rows_4B)
        # What is left of other batches to the right and below is never read: a row's context ends before it.
        fixed.page_table_RM[:rows, : staged.page_table_BM.shape[1]].copy_(staged.page_table_BM)
        graph = self._graphs.get(bucket)
        if graph is None:
            self._graphs[bucket] = self._capture(partial(self._forward, fixed, bucket))
        else:
            graph.replay()
        return fixed.logits_RV[:rows]

    def clear(self) -> None:
        """Forgets the graphs. Only when none of them runs, and before the lane's stream ends."""
        self._graphs.clear()
        self._fixed = None

    def _forward(self, fixed: _Fixed, bucket: int) -> None:
        token_ids_B, positions_B, slots_B, contexts_B = fixed.rows_4R[:, :bucket].unbind()
        inputs = ForwardInputs(
            token_ids_T=token_ids_B.long(),
            positions_T=positions_B,
            slots_T=slots_B,
            query_starts_B1=fixed.starts_R1[: bucket + 1],
            context_lens_B=contexts_B,
            page_table_BM=fixed.page_table_RM[:bucket],
            num_decode=bucket,
            max_query_tokens=0,
            max_decode_context_tokens=self._max_context_tokens,
            max_prefill_context_tokens=0,
        )
        logits_BV = self._runner.forward(inputs, fixed.order_R[:bucket], lane_sms=self._lane_sms)
        assert logits_BV is not None
        # Out of the graphs' pool: nothing in it outlives a run, so graphs that share it may replay in any order.
        fixed.logits_RV[:bucket].copy_(logits_BV)
