"""Triton kernels of `attention.decode`: each context cut into parts that run side by side, then merged.

One program's turn is a part of one sequence's context for one kv head and all query heads that share it. With
one part the result is written at once; else each part leaves its unnormalised result and the logarithm of its
weight, and a second kernel merges them. No program waits for another one, so the kernels run in a partition
of any size.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

import torch
import triton
import triton.language as tl

from drift_kernels import grids
from drift_kernels.attention_triton import LOG2_E, attend, precision

# The smallest tensor-core tile; the query heads of a group fill 1 to 8 (at most 16) of its rows.
ROWS = 16

# Keys per turn: 2 x 16 KB of 128 bf16 dimensions; float32 halves the keys for the same memory. Triton spreads
# the stages over the chain page -> key -> product, so 7 stages are 3 turns of keys and values in flight: 96
# KB per program, two programs per SM on sm_90, above the 75-100 KB that a partition of 32-45 SMs needs in
# flight to draw 4.8 TB/s. Estimate, not yet measured on a GPU.
COLUMNS = 64
STAGES = 7


@triton.jit(do_not_specialize=["sequences", "splits", "pages_per_sequence"])
def decode_kernel(
    q_ptr,
    key_ptr,
    value_ptr,
    context_lens_ptr,
    page_table_ptr,
    out_ptr,
    log_weight_ptr,
    sequences,
    splits,
    pages_per_sequence,
    scale_log2,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    SLOTS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    MERGED_LATER: tl.constexpr,
    PRECISION: tl.constexpr,
):
    GROUP: tl.constexpr = HEADS // KV_HEADS
    row = tl.arange(0, ROWS)
    dim = tl.arange(0, BLOCK_DIM)
    for item in range(tl.program_id(0), sequences * KV_HEADS * splits, tl.num_programs(0)):
        # Neighbouring programs take the kv heads of one part: the same pages, the same row of the page table.
        kv_head = item % KV_HEADS
        split = item // KV_HEADS % splits
        b = (item // KV_HEADS // splits).to(tl.int64)
        context_len = tl.load(context_lens_ptr + b)
        part = tl.cdiv(tl.cdiv(context_len, splits), COLUMNS) * COLUMNS
        first = tl.minimum(split * part, context_len)
        last = tl.minimum(first + part, context_len)
        unmasked = first + (last - first) // COLUMNS * COLUMNS

        head = kv_head * GROUP + row
        q_at = (b * HEADS + head)[:, None] * HEAD_DIM + dim[None, :]
        mask = (row < GROUP)[:, None] & (dim < HEAD_DIM)[None, :]
        q = tl.load(q_ptr + q_at, mask=mask, other=0.0)
        query_position = tl.full((ROWS,), 0, dtype=tl.int32) + context_len - 1
        accumulator = tl.zeros((ROWS, BLOCK_DIM), dtype=tl.float32)
        row_sum = tl.zeros((ROWS,), dtype=tl.float32)
        row_max = tl.full((ROWS,), float("-inf"), dtype=tl.float32)
        table_row_ptr = page_table_ptr + b * pages_per_sequence
        accumulator, row_sum, row_max = attend(
            q,
            accumulator,
            row_sum,
            row_max,
            first,
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
            last,
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
        # A part without keys has weight zero: its sum is 0 and its maximum minus infinity.
        row_sum = tl.where(row_sum > 0, row_sum, 1.0)
        out = accumulator / row_sum[:, None]
        if MERGED_LATER:
            partial = (b * HEADS + head) * splits + split
            tl.store(out_ptr + partial[:, None] * HEAD_DIM + dim[None, :], out, mask=mask)
            tl.store(log_weight_ptr + partial, row_max + tl.log2(row_sum), mask=row < GROUP)
        else:
            tl.store(out_ptr + q_at, out.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["rows", "splits"])
def merge_kernel(
    partial_ptr,
    log_weight_ptr,
    out_ptr,
    rows,
    splits,
    HEAD_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_SPLITS: tl.constexpr,
):
    split = tl.arange(0, BLOCK_SPLITS)
    dim = tl.arange(0, BLOCK_DIM)
    for row in range(tl.program_id(0), rows, tl.num_programs(0)):
        at = tl.cast(row, tl.int64) * splits + split
        log_weight = tl.load(log_weight_ptr + at, mask=split < splits, other=float("-inf"))
        largest = tl.max(log_weight, axis=0)
        # Without any key (a padding row) every weight is zero and so is the result.
        weight = tl.exp2(log_weight - tl.where(largest > float("-inf"), largest, 0.0))
        mask = (split < splits)[:, None] & (dim < HEAD_DIM)[None, :]
        partial = tl.load(partial_ptr + at[:, None] * HEAD_DIM + dim[None, :], mask=mask, other=0.0)
        total = tl.sum(weight, axis=0)
        out = tl.sum(partial * weight[:, None], axis=0) / tl.where(total > 0, total, 1.0)
        out_at = tl.cast(row, tl.int64) * HEAD_DIM + dim
        tl.store(out_ptr + out_at, out.to(out_ptr.dtype.element_ty), mask=dim < HEAD_DIM)


def decode(
    q_BNH: torch.Tensor,
    key_PKSH: torch.Tensor,
    value_PKSH: torch.Tensor,
    context_lens_B: torch.Tensor,
    page_table_BM: torch.Tensor,
    splits: int,
    scale: float,
    lane_sms: int,
) -> torch.Tensor:
    """Contracts are the launcher's; see there."""
    sequences, heads, head_dim = q_BNH.shape
    _, kv_heads, slots, _ = key_PKSH.shape
    assert heads // kv_heads <= ROWS, (
        f"{heads // kv_heads} query heads share a kv head, the kernel takes {ROWS}"
    )
    block_dim = max(16, triton.next_power_of_2(head_dim))
    out_BNH = torch.empty_like(q_BNH)
    partial, log_weight = out_BNH, out_BNH
    if splits > 1:
        partial = q_BNH.new_empty((sequences, heads, splits, head_dim), dtype=torch.float32)
        log_weight = q_BNH.new_empty((sequences, heads, splits), dtype=torch.float32)
    decode_kernel[(grids.decode(lane_sms, sequences * kv_heads * splits),)](
        q_BNH,
        key_PKSH,
        value_PKSH,
        context_lens_B,
        page_table_BM,
        partial,
        log_weight,
        sequences,
        splits,
        page_table_BM.shape[1],
        scale * LOG2_E,
        HEADS=heads,
        KV_HEADS=kv_heads,
        SLOTS=slots,
        HEAD_DIM=head_dim,
        BLOCK_DIM=block_dim,
        ROWS=ROWS,
        COLUMNS=COLUMNS if q_BNH.element_size() == 2 else COLUMNS // 2,
        MERGED_LATER=splits > 1,
        PRECISION=precision(q_BNH.dtype),
        num_warps=4,
        num_stages=STAGES,
    )
    if splits > 1:
        merge_kernel[(grids.rows(lane_sms, sequences * heads),)](
            partial,
            log_weight,
            out_BNH,
            sequences * heads,
            splits,
            HEAD_DIM=head_dim,
            BLOCK_DIM=block_dim,
            BLOCK_SPLITS=triton.next_power_of_2(splits),
        )
    return out_BNH
