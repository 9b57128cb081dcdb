"""SwiGLU: the gate of the MLP, between its two matrix products.

T packed tokens, F MLP width.
"""

import torch
import torch.nn.functional as F  # noqa: N812

from drift_kernels import contracts, dispatch


def swiglu(gate_up_T2F: torch.Tensor, *, lane_sms: int, impl: str = "auto") -> torch.Tensor:
    """`silu(gate) * up` of rows packed as [gate, up]: [T, 2F] -> [T, F], float32 inside, rounded once."""
    tokens, width = gate_up_T2F.shape
    assert width % 2 == 0, f"a row of {width} cannot hold a gate and an up part of equal width"
    contracts.tensor("gate_up", gate_up_T2F, (tokens, width), gate_up_T2F.dtype)
    chosen = dispatch.choose(impl, gate_up_T2F)
    if chosen == "triton" and tokens > 0:
        from drift_kernels import activations_triton

        return activations_triton.swiglu(gate_up_T2F, lane_sms)
    return reference(gate_up_T2F)


def reference(gate_up_T2F: torch.Tensor) -> torch.Tensor:
    """The definition; also what runs on a CPU."""
    gate_TF, up_TF = gate_up_T2F.chunk(2, dim=-1)
    return F.silu(gate_TF.float()).mul_(up_TF).to(gate_up_T2F.dtype)
