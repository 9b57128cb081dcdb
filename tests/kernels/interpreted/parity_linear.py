"""Matrix product: the Triton kernel in the interpreter against its reference."""

import pytest
import torch

from drift_kernels import linear
from kernel_cases import assert_close

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(
    ("tokens", "width", "outputs"), [(1, 64, 40), (16, 300, 64), (33, 128, 129), (130, 70, 100)]
)
def test_linear(tokens: int, width: int, outputs: int, dtype: torch.dtype, with_bias: bool) -> None:
    x, weight = torch.randn(tokens, width).to(dtype), (torch.randn(outputs, width) / width**0.5).to(dtype)
    bias = torch.randn(outputs).to(dtype) if with_bias else None
    expected = linear.linear(x, weight, bias, lane_sms=3, impl="reference")
    assert_close(linear.linear(x, weight, bias, lane_sms=3, impl="triton"), expected)
