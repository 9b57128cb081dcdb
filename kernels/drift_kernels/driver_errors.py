"""What the CUDA driver refuses, in words: the call, the driver's code, and what it means for who runs the node."""

from __future__ import annotations

OUT_OF_MEMORY = 2
NOT_SUPPORTED = 801
INVALID_RESOURCE_TYPE = 914
INVALID_RESOURCE_CONFIGURATION = 915

_NEEDS = "green contexts need a driver of CUDA 12.5 or newer (nvidia-smi shows the driver's CUDA version)"

_MEANINGS = {
    1: "the driver does not take these arguments: its version and that of cuda-bindings may not fit together",
    OUT_OF_MEMORY: "too little GPU memory is left for the partitions, some megabytes each: give the KV cache less",
    3: "CUDA was not started: torch must have used the GPU before",
    4: "CUDA is shutting down",
    100: "the driver sees no GPU",
    101: "the driver does not know this GPU",
    201: "a context that was destroyed, or a driver too old for this call",
    NOT_SUPPORTED: f"this GPU or driver can't be partitioned: {_NEEDS}",
    INVALID_RESOURCE_TYPE: "the driver does not know this kind of resource: workqueues came with CUDA 13.1",
    INVALID_RESOURCE_CONFIGURATION: "the driver can't make a partition of these SMs",
}


class DriverError(RuntimeError):
    """A driver call failed. `error_code` is the driver's, None where the call does not exist."""

    def __init__(self, call: str, error_code: int | None, name: str, meaning: str | None = None) -> None:
        known = _MEANINGS.get(error_code) if error_code is not None else _NEEDS
        code = f" ({error_code})" if error_code is not None else ""
        super().__init__(f"{call}: {name}{code}: {meaning or known or 'see the CUDA driver API'}")
        self.call = call
        self.error_code = error_code
