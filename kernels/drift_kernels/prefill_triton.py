"""Triton kernel of `attention.prefill`: flash attention of ragged queries over paged keys and values.

A tile is some queries of one sequence times all query heads that share one kv head, so that each key and
value is read once for the group. It walks the context up to its last query's position: first the tiles that
every query sees in full, without a mask, then the few on the diagonal; what lies behind is never read.

Which sequence a tile belongs to is found on the device: sequence b gets the tiles from `query_starts[b] // Q
+ b` on (Q queries per tile), which leaves room for one partly filled tile per sequence; the tiles without
queries end at once.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from drift_kernels import grids
from drift_kernels.attention_triton import LOG2_E, attend, precision


class Tiles(NamedTuple):
    """Sizes of one compiled variant."""

    rows: int  # queries x heads of the group
    columns: int  # keys per turn of the loop
    warps: int
    stages: int  # loads in flight


def tiles(query_rows: int, element_bytes: int) -> Tiles:
    """Sizes for at most `query_rows` queries x group heads per sequence. Estimates, not yet measured on a GPU.

    128 rows x 64 keys of 128 half-precision dimensions is the shape with which public Triton kernels reach
    65-70 % of FlashAttention-3; with its queries and two turns of keys and values it takes 96 KB on sm_90, 64
    KB on sm_80. Short queries (a chunk's tail, a mostly cached prompt) take fewer rows, for the tensor cores
    would multiply padding. Float32, which only tests use on a GPU, takes half the keys for the same memory.
    """
    if element_bytes == 4:
        return Tiles(rows=32 if query_rows > 16 else 16, columns=32, warps=4, stages=2)
    if query_rows > 64:
        return Tiles(rows=128, columns=64, warps=8, stages=3)
    return Tiles(rows=64 if query_rows > 16 else 16, columns=64, warps=4, stages=3)


@triton.jit
def sequence_of_tile(starts_ptr, tile, sequences, QUERIES: tl.constexpr):
    """The last sequence b whose first tile, starts[b] // QUERIES + b, is not behind `tile`: a binary search."""
    low = tl.full([], 0, tl.int32)
    high = tl.full([], 0, tl.int32) + sequences
    while high - low > 1:
        middle = (low + high) // 2
        if tl.load(starts_ptr + middle) // QUERIES + middle <= tile:
            low = middle
        else:
            high = middle
    return low


@triton.jit(
    do_not_specialize=["sequences", "tile_count", "pages_per_sequence"],
    # In a mixed pass these are slices that start anywhere: no variant may depend on their alignment.
    do_not_specialize_on_alignment=["context_lens_ptr", "page_table_ptr"],
)
def prefill_kernel(
    q_ptr,
    key_ptr,
    value_ptr,
    query_starts_ptr,
    context_lens_ptr,
    page_table_ptr,
    out_ptr,
    sequences,
    tile_count,
    pages_per_sequence,
    scale_log2,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    SLOTS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    GROUP: tl.constexpr = HEADS // KV_HEADS
    QUERIES: tl.constexpr = ROWS // GROUP
    row = tl.arange(0, ROWS)
    dim = tl.arange(0, BLOCK_DIM)
    for item in range(tl.program_id(0), tile_count * KV_HEADS, tl.num_programs(0)):
        # Later tiles of a sequence see more keys: last first, so that the long ones do not end up alone.
        tile = tile_count - 1 - item // KV_HEADS
        kv_head = item % KV_HEADS
        b = sequence_of_tile(query_starts_ptr, tile, sequences, QUERIES)
        query_start = tl.load(query_starts_ptr + b)
        query_len = tl.load(query_starts_ptr + b + 1) - query_start
        first_query = (tile - (query_start // QUERIES + b)) * QUERIES
        if first_query < query_len:
            context_len = tl.load(context_lens_ptr + b)
            query = first_query + row // GROUP
            row_inside = (query < query_len) & (row < QUERIES * GROUP)
            query_position = context_len - query_len + query
            head = kv_head * GROUP + row % GROUP
            token = (query_start + query).to(tl.int64)
            q_at = (token * HEADS + head)[:, None] * HEAD_DIM + dim[None, :]
            q_mask = row_inside[:, None] & (dim < HEAD_DIM)[None, :]
            q = tl.load(q_ptr + q_at, mask=q_mask, other=0.0)

            first_position = context_len - query_len + first_query
            # Every query of the tile sees the keys [0, unmasked); none sees a key behind `end`.
            unmasked = (first_position + 1) // COLUMNS * COLUMNS
            end = tl.minimum(first_position + QUERIES, context_len)
            accumulator = tl.zeros((ROWS, BLOCK_DIM), dtype=tl.float32)
            row_sum = tl.zeros((ROWS,), dtype=tl.float32)
            row_max = tl.full((ROWS,), float("-inf"), dtype=tl.float32)
            table_row_ptr = page_table_ptr + tl.cast(b, tl.int64) * pages_per_sequence
            accumulator, row_sum, row_max = attend(
                q,
                accumulator,
                row_sum,
                row_max,
                0,
                unmasked,
                query_position,
                key_ptr,
                value_ptr,
                table_row_ptr,
                kv_head,
                scale_log2,
                KV_HEADS,
                SLOTS,
                HEAD_DIM,
                BLOCK_DIM,
                COLUMNS,
                False,
                PRECISION,
            )
            accumulator, row_sum, row_max = attend(
                q,
                accumulator,
                row_sum,
                row_max,
                unmasked,
                end,
                query_position,
                key_ptr,
                value_ptr,
                table_row_ptr,
                kv_head,
                scale_log2,
                KV_HEADS,
                SLOTS,
                HEAD_DIM,
                BLOCK_DIM,
                COLUMNS,
                True,
                PRECISION,
            )
            out = accumulator / row_sum[:, None]
            tl.store(out_ptr + q_at, out.to(out_ptr.dtype.element_ty), mask=q_mask)


def prefill(
    q_TNH: torch.Tensor,
    key_PKSH: torch.Tensor,
    value_PKSH: torch.Tensor,
    query_starts_B1: torch.Tensor,
    context_lens_B: torch.Tensor,
    page_table_BM: torch.Tensor,
    max_query_tokens: int,
    scale: float,
    lane_sms: int,
) -> torch.Tensor:
    """Contracts are the launcher's; see there."""
    tokens, heads, head_dim = q_TNH.shape
    _, kv_heads, slots, _ = key_PKSH.shape
    sequences, pages_per_sequence = page_table_BM.shape
    group = heads // kv_heads
    assert group <= 16, f"{group} query heads share a kv head, the kernel takes 16"
    sizes = tiles(max_query_tokens * group, q_TNH.element_size())
    tile_count = tokens // (sizes.rows // group) + sequences
    out_TNH = torch.empty_like(q_TNH)
    prefill_kernel[(grids.prefill(lane_sms, tile_count * kv_heads),)](
        q_TNH,
        key_PKSH,
        value_PKSH,
        query_starts_B1,
        context_lens_B,
        page_table_BM,
        out_TNH,
        sequences,
        tile_count,
        pages_per_sequence,
        scale * LOG2_E,
        HEADS=heads,
        KV_HEADS=kv_heads,
        SLOTS=slots,
        HEAD_DIM=head_dim,
        BLOCK_DIM=max(16, triton.next_power_of_2(head_dim)),
        ROWS=sizes.rows,
        COLUMNS=sizes.columns,
        PRECISION=precision(q_TNH.dtype),
        num_warps=sizes.warps,
        num_stages=sizes.stages,
    )
    return out_TNH
