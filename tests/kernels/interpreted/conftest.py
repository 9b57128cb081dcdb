"""Makes Triton's interpreter count as a GPU does. Only in a process of its own, see `test_parity.py`."""

import os
from typing import Any

import numpy as np
import pytest
import torch
import triton.language as tl
from triton.runtime import interpreter

_patch_lang_tensor = interpreter._patch_lang_tensor
_cast_impl = interpreter.InterpreterBuilder.cast_impl
_create_dot = interpreter.InterpreterBuilder.create_dot


def _patch_with_scalar_index(tensor: Any, scope: Any) -> None:
    """Triton 3.6 keeps scalars as arrays of one element, which numpy 2.4 no longer takes for an int by itself."""
    _patch_lang_tensor(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))


def _cast_to_nearest(self: Any, src: Any, dst_type: Any) -> Any:
    """Triton 3.6 cuts float32 down to bfloat16 in the interpreter; a GPU rounds."""
    if (src.dtype.scalar, dst_type.scalar) != (tl.float32, tl.bfloat16):
        return _cast_impl(self, src, dst_type)
    rounded = torch.from_numpy(np.ascontiguousarray(src.data)).bfloat16()
    return interpreter.TensorHandle(rounded.view(torch.uint16).numpy(), tl.bfloat16)


def _dot_of_values(self: Any, a: Any, b: Any, d: Any, *options: Any) -> Any:
    """Triton 3.6 keeps bfloat16 as its bits and would multiply those; float32 holds the products exactly."""
    a, b = (self.cast_impl(x, tl.float32) if x.dtype.scalar == tl.bfloat16 else x for x in (a, b))
    return _create_dot(self, a, b, d, *options)


if os.environ.get("TRITON_INTERPRET") == "1":
    interpreter._patch_lang_tensor = _patch_with_scalar_index
    interpreter.InterpreterBuilder.cast_impl = _cast_to_nearest
    interpreter.InterpreterBuilder.create_dot = _dot_of_values


@pytest.fixture(autouse=True)
def _same_numbers_every_run() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
