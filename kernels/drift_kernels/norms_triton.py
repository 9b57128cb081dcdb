"""Triton kernel of `norms.add_rms_norm`: one row per turn, read once, written once."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

import torch
import triton
import triton.language as tl

from drift_kernels import grids

# A row is held in registers: 64 float32 values per thread at 16 warps, a quarter of a thread's registers.
MAX_HIDDEN = 32768


@triton.jit(do_not_specialize=["tokens"])
def add_rms_norm_kernel(
    x_ptr,
    residual_ptr,
    weight_ptr,
    normed_ptr,
    total_ptr,
    tokens,
    eps,
    HIDDEN: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    column = tl.arange(0, BLOCK)
    inside = column < HIDDEN
    weight = tl.load(weight_ptr + column, mask=inside, other=0.0).to(tl.float32)
    for token in range(tl.program_id(0), tokens, tl.num_programs(0)):
        at = tl.cast(token, tl.int64) * HIDDEN + column
        total = tl.load(x_ptr + at, mask=inside, other=0.0)
        if HAS_RESIDUAL:
            residual = tl.load(residual_ptr + at, mask=inside, other=0.0)
            # Rounded before it is normalised: later layers add to the value that was normalised here.
            total = (total.to(tl.float32) + residual.to(tl.float32)).to(total.dtype)
            tl.store(total_ptr + at, total, mask=inside)
        total = total.to(tl.float32)
        variance = tl.sum(total * total, axis=0) / HIDDEN
        normed = weight * (total * tl.rsqrt(variance + eps))
        tl.store(normed_ptr + at, normed.to(normed_ptr.dtype.element_ty), mask=inside)


def add_rms_norm(
    x_TE: torch.Tensor, residual_TE: torch.Tensor | None, weight_E: torch.Tensor, eps: float, lane_sms: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Contracts are the launcher's; see there."""
    tokens, hidden = x_TE.shape
    assert hidden <= MAX_HIDDEN, f"a hidden size of {hidden} is above {MAX_HIDDEN}"
    normed_TE = torch.empty_like(x_TE)
    total_TE = x_TE if residual_TE is None else torch.empty_like(x_TE)
    block = triton.next_power_of_2(hidden)
    add_rms_norm_kernel[(grids.rows(lane_sms, tokens),)](
        x_TE,
        x_TE if residual_TE is None else residual_TE,
        weight_E,
        normed_TE,
        total_TE,
        tokens,
        eps,
        HIDDEN=hidden,
        HAS_RESIDUAL=residual_TE is not None,
        BLOCK=block,
        num_warps=warps(block),
    )
    return normed_TE, total_TE


def warps(block: int) -> int:
    """Sixteen values per thread, so that a bf16 thread moves two 16-byte words; at most sixteen warps."""
    return max(1, min(16, block // (16 * 32)))
