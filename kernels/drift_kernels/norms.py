"""RMSNorm with the residual addition in front of it: the glue between the blocks of a transformer layer.

Called by the model between attention and MLP; `x` is the block's output, `residual` the stream that it is
added to.

T packed tokens, E hidden size.
"""

import torch

from drift_kernels import contracts, dispatch


def add_rms_norm(
    x_TE: torch.Tensor,
    residual_TE: torch.Tensor | None,
    weight_E: torch.Tensor,
    eps: float,
    *,
    lane_sms: int,
    impl: str = "auto",
) -> tuple[torch.Tensor, torch.Tensor]:
    """`(rms_norm(x + residual) * weight, x + residual)`, both [T, E] in x's dtype.

    The sum is rounded to x's dtype before it is normalised, so that the next layer adds to the value that was
    normalised here; the norm itself is float32 and rounded once. Without a residual the second result is `x`
    itself.
    """
    tokens, hidden = x_TE.shape
    contracts.tensor("x", x_TE, (tokens, hidden), x_TE.dtype)
    contracts.tensor("weight", weight_E, (hidden,), x_TE.dtype)
    if residual_TE is not None:
        contracts.tensor("residual", residual_TE, (tokens, hidden), x_TE.dtype)
    chosen = dispatch.choose(impl, x_TE)
    if chosen == "triton" and tokens > 0:
        from drift_kernels import norms_triton

        return norms_triton.add_rms_norm(x_TE, residual_TE, weight_E, eps, lane_sms)
    return reference(x_TE, residual_TE, weight_E, eps)


def reference(
    x_TE: torch.Tensor, residual_TE: torch.Tensor | None, weight_E: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The definition; also what runs on a CPU, where it is bound by memory as any other form would be."""
    total_TE = x_TE if residual_TE is None else x_TE + residual_TE
    return rms_norm(total_TE, weight_E, eps).to(x_TE.dtype), total_TE


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """RMSNorm over the last dimension, in float32 whatever goes in."""
    x32 = x.float()
    variance = x32.square().mean(-1, keepdim=True)
    return weight.float() * (x32 * torch.rsqrt(variance + eps))
