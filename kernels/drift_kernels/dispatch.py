"""Which implementation of an operation runs: the one decision that every launcher shares.

`auto` takes what is meant for the tensor's device. Tests and benchmarks name an implementation; a name that
cannot work on the given tensor is our own error and fails here, before a kernel is launched.
"""

import os

import torch


def choose(impl: str, tensor: torch.Tensor, *others: str) -> str:
    """`impl` resolved for `tensor`; `others` are implementations that an operation has beside the usual three."""
    on_cpu = tensor.device.type == "cpu"
    if impl == "auto":
        return "cpu" if on_cpu else "triton"
    assert impl in ("cpu", "triton", "reference", *others), f"unknown implementation {impl!r}"
    assert impl != "cpu" or on_cpu, f"implementation 'cpu' was given a tensor on {tensor.device}"
    # Triton's interpreter runs kernels on CPU tensors; it is switched on before triton is imported.
    assert impl != "triton" or not on_cpu or os.environ.get("TRITON_INTERPRET") == "1", (
        "implementation 'triton' was given a CPU tensor outside Triton's interpreter"
    )
    return impl
