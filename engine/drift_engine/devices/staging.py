"""One pass's memory between host and device: what goes up in one copy, and where its results come down.

A lane packs its inputs with `put`, gets device tensors at once, and `send`s everything as one copy in the order of
its stream; `fetch` brings results back behind the kernels that make them. Neither waits. A staging belongs to one
pass from its launch until its results were read, so no byte is reused while a copy may still read or write it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Put = Callable[[NDArray[Any]], torch.Tensor]
"""Takes host values, gives a device tensor that holds them by the time a kernel reads it."""

# Tensors start at multiples of this: Triton compiles another variant of a kernel for a pointer that is not a multiple
# of 16, and CUDA's own allocations are multiples of 256.
ALIGN_BYTES = 256

# Holds a decode step of 64 rows with 2,000 pages each. What needs more gets a further block, which is kept.
BLOCK_BYTES = 1 << 20

_TORCH = {
    np.dtype(np.int32): torch.int32,
    np.dtype(np.int64): torch.int64,
    np.dtype(np.float32): torch.float32,
}


def align(size: int, unit: int) -> int:
    return -(-size // unit) * unit


class Staging:
    """Blocks of page-locked host memory, each with its counterpart on the device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._blocks = [_Block(BLOCK_BYTES, device)]

    def put(self, values: NDArray[Any]) -> torch.Tensor:
        """A device tensor of these values; they arrive with the next `send`."""
        block = self._block(values.nbytes)
        start, stop = block.take(values.nbytes)
        np.copyto(block.array[start:stop].view(values.dtype).reshape(values.shape), values)
        return block.device[start:stop].view(_TORCH[values.dtype]).view(values.shape)

    def send(self) -> None:
        """Copies what was put since the last time, on the current stream."""
        for block in self._blocks:
            if block.sent < block.used:
                part = slice(block.sent, block.used)
                block.device[part].copy_(block.host[part], non_blocking=True)
                block.sent = block.used

    def fetch(self, tensor: torch.Tensor) -> torch.Tensor:
        """A host tensor that holds a copy once the current stream gets there. Call it behind `send`."""
        block = self._block(tensor.nbytes)
        assert block.sent == block.used, "fetch between put and send"
        start, stop = block.take(tensor.nbytes)
        block.sent = block.used  # never to be sent
        host = block.host[start:stop].view(tensor.dtype).view(tensor.shape)
        return host.copy_(tensor, non_blocking=True)

    def clear(self) -> None:
        """Forgets all tensors. Only when their pass is over and its results were read."""
        for block in self._blocks:
            block.used = block.sent = 0

    def _block(self, size_bytes: int) -> _Block:
        for block in self._blocks:
            if block.used + size_bytes <= len(block.array):
                return block
        self._blocks.append(_Block(align(size_bytes, BLOCK_BYTES), self._device))
        return self._blocks[-1]


class _Block:
    def __init__(self, size_bytes: int, device: torch.device) -> None:
        self.host = torch.empty(size_bytes, dtype=torch.uint8, pin_memory=device.type == "cuda")
        self.array: NDArray[np.uint8] = self.host.numpy()
        self.device = torch.empty(size_bytes, dtype=torch.uint8, device=device)
        self.used = 0
        self.sent = 0

    def take(self, size_bytes: int) -> tuple[int, int]:
        start = self.used
        self.used = min(align(start + size_bytes, ALIGN_BYTES), len(self.array))
        return start, start + size_bytes
