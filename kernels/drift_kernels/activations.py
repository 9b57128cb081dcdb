"""SwiGLU: the gate of the MLP, between its two matrix products.

T packed tokens, F MLP width.
"""

import torch

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
    """The definition; also what runs on a CPU.

    Not `F.silu`: where it splits its work between threads depends on the number of rows, and it computes the end of
    each thread's share by another exponential, so that a row would depend on the batch around it.
    """
    gate_TF, up_TF = gate_up_T2F.chunk(2, dim=-1)
    gate_TF = gate_TF.float()
    divisor_TF = torch.neg(gate_TF).exp_().add_(1)
    return torch.div(gate_TF, divisor_TF, out=divisor_TF).mul_(up_TF).to(gate_up_T2F.dtype)
