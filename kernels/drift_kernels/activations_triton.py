"""Triton kernel of `activations.swiglu`: elements in blocks, gate and up read once."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

import torch
import triton
import triton.language as tl

from drift_kernels import grids

# 1024 elements on 4 warps: 8 per thread, one 16-byte load of bf16 from each half.
BLOCK = 1024


@triton.jit(do_not_specialize=["blocks"])
def swiglu_kernel(gate_up_ptr, out_ptr, blocks, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    ROW_BLOCKS: tl.constexpr = (WIDTH + BLOCK - 1) // BLOCK
    for block in range(tl.program_id(0), blocks, tl.num_programs(0)):
        token = tl.cast(block // ROW_BLOCKS, tl.int64)
        column = (block % ROW_BLOCKS) * BLOCK + tl.arange(0, BLOCK)
        inside = column < WIDTH
        at = token * (2 * WIDTH) + column
        gate = tl.load(gate_up_ptr + at, mask=inside, other=0.0).to(tl.float32)
        up = tl.load(gate_up_ptr + at + WIDTH, mask=inside, other=0.0).to(tl.float32)
        out = gate * tl.sigmoid(gate) * up
        tl.store(out_ptr + token * WIDTH + column, out.to(out_ptr.dtype.element_ty), mask=inside)


def swiglu(gate_up_T2F: torch.Tensor, lane_sms: int) -> torch.Tensor:
    """Contracts are the launcher's; see there."""
    tokens, width = gate_up_T2F.shape[0], gate_up_T2F.shape[1] // 2
    h_TF = gate_up_T2F.new_empty((tokens, width))
    blocks = tokens * triton.cdiv(width, BLOCK)
    swiglu_kernel[(grids.rows(lane_sms, blocks),)](gate_up_T2F, h_TF, blocks, WIDTH=width, BLOCK=BLOCK)
    return h_TF
