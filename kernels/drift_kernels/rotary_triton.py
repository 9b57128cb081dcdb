"""Triton kernel of `rotary.rotate_and_store`: one token and a block of its heads per turn.

Query, key and value heads of a row go through one body; what differs is the norm's weight, whether the head
turns, and where it is written. A head lives in registers as its two halves, which the rotation mixes.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

import torch
import triton
import triton.language as tl

from drift_kernels import grids

# Eight heads of 128 bf16 dimensions are 2 KB: 8 elements of each half per thread on 2 warps. A decode step of
# 8 rows of 48 heads then already makes 48 programs. Estimate, not yet measured on a GPU.
HEADS_PER_BLOCK = 8


@triton.jit(do_not_specialize=["items"])
def rotate_and_store_kernel(
    qkv_ptr,
    q_norm_ptr,
    k_norm_ptr,
    cos_sin_ptr,
    positions_ptr,
    slots_ptr,
    key_ptr,
    value_ptr,
    q_ptr,
    items,
    eps,
    PAGE_SLOTS: tl.constexpr,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HAS_NORM: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_HALF: tl.constexpr,
):
    HALF: tl.constexpr = HEAD_DIM // 2
    ROW_HEADS: tl.constexpr = HEADS + 2 * KV_HEADS
    HEAD_BLOCKS: tl.constexpr = (ROW_HEADS + BLOCK_HEADS - 1) // BLOCK_HEADS
    column = tl.arange(0, BLOCK_HALF)
    in_half = column < HALF
    for item in range(tl.program_id(0), items, tl.num_programs(0)):
        token = tl.cast(item // HEAD_BLOCKS, tl.int64)
        head = (item % HEAD_BLOCKS) * BLOCK_HEADS + tl.arange(0, BLOCK_HEADS)
        is_query = head < HEADS
        is_key = (head >= HEADS) & (head < HEADS + KV_HEADS)
        is_value = (head >= HEADS + KV_HEADS) & (head < ROW_HEADS)
        inside = (head < ROW_HEADS)[:, None] & in_half[None, :]

        at = (token * ROW_HEADS + head)[:, None] * HEAD_DIM + column[None, :]
        first_in = tl.load(qkv_ptr + at, mask=inside, other=0.0)
        second_in = tl.load(qkv_ptr + at + HALF, mask=inside, other=0.0)
        first = first_in.to(tl.float32)
        second = second_in.to(tl.float32)
        if HAS_NORM:
            variance = tl.sum(first * first + second * second, axis=1) / HEAD_DIM
            inverse = tl.rsqrt(variance + eps)[:, None]
            q_first = tl.load(q_norm_ptr + column, mask=in_half, other=0.0).to(tl.float32)
            q_second = tl.load(q_norm_ptr + HALF + column, mask=in_half, other=0.0).to(tl.float32)
            k_first = tl.load(k_norm_ptr + column, mask=in_half, other=0.0).to(tl.float32)
            k_second = tl.load(k_norm_ptr + HALF + column, mask=in_half, other=0.0).to(tl.float32)
            first = tl.where(is_query[:, None], q_first[None, :], k_first[None, :]) * (first * inverse)
            second = tl.where(is_query[:, None], q_second[None, :], k_second[None, :]) * (second * inverse)

        angle = tl.load(positions_ptr + token).to(tl.int64) * HEAD_DIM + column
        cos = tl.load(cos_sin_ptr + angle, mask=in_half, other=0.0)[None, :]
        sin = tl.load(cos_sin_ptr + angle + HALF, mask=in_half, other=0.0)[None, :]
        first_out = first * cos - second * sin
        second_out = second * cos + first * sin

        q_at = (token * HEADS + head)[:, None] * HEAD_DIM + column[None, :]
        q_mask = is_query[:, None] & in_half[None, :]
        tl.store(q_ptr + q_at, first_out.to(q_ptr.dtype.element_ty), mask=q_mask)
        tl.store(q_ptr + q_at + HALF, second_out.to(q_ptr.dtype.element_ty), mask=q_mask)

        slot = tl.load(slots_ptr + token).to(tl.int64)
        kv_head = tl.where(is_key, head - HEADS, head - HEADS - KV_HEADS)
        # [page, kv head, offset, dimension], flattened.
        kv_row = (slot // PAGE_SLOTS * KV_HEADS + kv_head) * PAGE_SLOTS + slot % PAGE_SLOTS
        kv_at = kv_row[:, None] * HEAD_DIM + column[None, :]
        key_mask = is_key[:, None] & in_half[None, :] & (slot >= 0)
        tl.store(key_ptr + kv_at, first_out.to(key_ptr.dtype.element_ty), mask=key_mask)
        tl.store(key_ptr + kv_at + HALF, second_out.to(key_ptr.dtype.element_ty), mask=key_mask)
        value_mask = is_value[:, None] & in_half[None, :] & (slot >= 0)
        tl.store(value_ptr + kv_at, first_in.to(value_ptr.dtype.element_ty), mask=value_mask)
        tl.store(value_ptr + kv_at + HALF, second_in.to(value_ptr.dtype.element_ty), mask=value_mask)


def rotate_and_store(
    qkv_TX: torch.Tensor,
    q_norm_H: torch.Tensor | None,
    k_norm_H: torch.Tensor | None,
    cos_sin_LH: torch.Tensor,
    positions_T: torch.Tensor,
    slots_T: torch.Tensor,
    key_PKSH: torch.Tensor,
    value_PKSH: torch.Tensor,
    num_heads: int,
    eps: float,
    lane_sms: int,
) -> torch.Tensor:
    """Contracts are the launcher's; see there."""
    tokens = qkv_TX.shape[0]
    _, kv_heads, slots, head_dim = key_PKSH.shape
    q_TNH = qkv_TX.new_empty((tokens, num_heads, head_dim))
    items = tokens * triton.cdiv(num_heads + 2 * kv_heads, HEADS_PER_BLOCK)
    rotate_and_store_kernel[(grids.rows(lane_sms, items),)](
        qkv_TX,
        qkv_TX if q_norm_H is None else q_norm_H,
        qkv_TX if k_norm_H is None else k_norm_H,
        cos_sin_LH,
        positions_T,
        slots_T,
        key_PKSH,
        value_PKSH,
        q_TNH,
        items,
        eps,
        PAGE_SLOTS=slots,
        HEADS=num_heads,
        KV_HEADS=kv_heads,
        HEAD_DIM=head_dim,
        HAS_NORM=q_norm_H is not None,
        BLOCK_HEADS=HEADS_PER_BLOCK,
        BLOCK_HALF=triton.next_power_of_2(head_dim // 2),
        num_warps=2,
    )
    return q_TNH
