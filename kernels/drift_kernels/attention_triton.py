"""What the prefill and the decode kernel share: the walk over paged keys and values with its online softmax."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

import torch
import triton
import triton.language as tl

LOG2_E = 1.4426950408889634  # the kernels use exp2, which is one instruction


def precision(dtype: torch.dtype) -> str:
    """Float32 products must not be rounded to TensorFloat32; half-precision products are exact either way."""
    return "ieee" if dtype == torch.float32 else "tf32"


@triton.jit
def paged_rows(table_row_ptr, position, inside, kv_head, KV_HEADS: tl.constexpr, SLOTS: tl.constexpr):
    """Row numbers in the cache seen as [P * K * S, H], one for each position of a sequence."""
    page = tl.load(table_row_ptr + position // SLOTS, mask=inside, other=0).to(tl.int64)
    return (page * KV_HEADS + kv_head) * SLOTS + position % SLOTS


@triton.jit
def attend(
    q,
    accumulator,
    row_sum,
    row_max,
    first,
    last,
    query_position,
    key_ptr,
    value_ptr,
    table_row_ptr,
    kv_head,
    scale_log2,
    KV_HEADS: tl.constexpr,
    SLOTS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    COLUMNS: tl.constexpr,
    MASKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Online softmax over the keys [first, last); `MASKED` where some query does not see some key."""
    dim = tl.arange(0, BLOCK_DIM)
    for start in range(first, last, COLUMNS):
        position = start + tl.arange(0, COLUMNS)
        inside = position < last
        at = (
            paged_rows(table_row_ptr, position, inside, kv_head, KV_HEADS, SLOTS)[:, None] * HEAD_DIM
            + dim[None, :]
        )
        if MASKED or BLOCK_DIM != HEAD_DIM:
            load_mask = inside[:, None] & (dim < HEAD_DIM)[None, :]
            k = tl.load(key_ptr + at, mask=load_mask, other=0.0)
            v = tl.load(value_ptr + at, mask=load_mask, other=0.0)
        else:
            k = tl.load(key_ptr + at)
            v = tl.load(value_ptr + at)
        score = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale_log2
        if MASKED:
            visible = (position[None, :] <= query_position[:, None]) & inside[None, :]
            score = tl.where(visible, score, float("-inf"))
        new_max = tl.maximum(row_max, tl.max(score, axis=1))
        weight = tl.exp2(score - new_max[:, None])
        shrink = tl.exp2(row_max - new_max)
        row_sum = row_sum * shrink + tl.sum(weight, axis=1)
        accumulator = accumulator * shrink[:, None]
        accumulator = tl.dot(weight.to(v.dtype), v, accumulator, input_precision=PRECISION)
        row_max = new_max
    return accumulator, row_sum, row_max
