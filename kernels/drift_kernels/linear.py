"""Matrix products of the model: y = x W^T + b.

T packed tokens, I input features, O output features.
"""

import torch
import torch.nn.functional as F  # noqa: N812

from drift_kernels import contracts, dispatch


def prepare(weight_OI: torch.Tensor) -> torch.Tensor:
    """The weight in the form in which `linear` reads it fastest on its device: on a CPU a packed copy, which only
    `linear` and `to_dense` understand."""
    if weight_OI.device.type != "cpu":
        return weight_OI
    from drift_kernels import cpu

    return cpu.pack(weight_OI)


def linear(
    x_TI: torch.Tensor,
    weight_OI: torch.Tensor,
    bias_O: torch.Tensor | None,
    *,
    lane_sms: int,
    impl: str = "auto",
) -> torch.Tensor:
    """`x @ weight.T + bias` as [T, O] in x's dtype, accumulated in float32; the weight as it is or prepared.

    On CUDA, `auto` takes the library (cuBLAS) for a lane that spans the device and our persistent kernel
    inside a partition: cuBLAS plans for all SMs and loses up to 28 % in a green context, where the kernel's
    grid is the lane.
    """
    tokens, width = x_TI.shape
    outputs = weight_OI.shape[0]
    contracts.tensor("x", x_TI, (tokens, width), x_TI.dtype)
    chosen = dispatch.choose(impl, x_TI, "library")
    if weight_OI.is_mkldnn:
        assert chosen == "cpu", f"a prepared weight was given to implementation {chosen!r}"
        contracts.like("weight", weight_OI, (outputs, width), x_TI.dtype)
    else:
        contracts.tensor("weight", weight_OI, (outputs, width), x_TI.dtype)
    if bias_O is not None:
        contracts.tensor("bias", bias_O, (outputs,), x_TI.dtype)
    if impl == "auto" and chosen == "triton" and spans_device(x_TI.device, lane_sms):
        chosen = "library"
    if chosen == "triton" and tokens > 0:
        from drift_kernels import linear_triton

        return linear_triton.linear(x_TI, weight_OI, bias_O, lane_sms)
    if chosen == "cpu":
        from drift_kernels import cpu

        return cpu.linear(x_TI, weight_OI, bias_O)
    if chosen == "reference":
        return reference(x_TI, weight_OI, bias_O)
    return F.linear(x_TI, weight_OI, bias_O)


def spans_device(device: torch.device, lane_sms: int) -> bool:
    """Whether a lane of `lane_sms` is the whole GPU (the properties are cached by torch; no synchronisation)."""
    return lane_sms >= int(torch.cuda.get_device_properties(device).multi_processor_count)


def reference(x_TI: torch.Tensor, weight_OI: torch.Tensor, bias_O: torch.Tensor | None) -> torch.Tensor:
    """The definition."""
    y_TO = x_TI.float() @ weight_OI.float().T
    if bias_O is not None:
        y_TO = y_TO + bias_O.float()
    return y_TO.to(x_TI.dtype)
