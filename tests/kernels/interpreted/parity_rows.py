"""Norm, rotary embedding and activation: the Triton kernels in the interpreter against their references."""

import pytest
import torch

from drift_kernels import activations, norms, rotary
from kernel_cases import assert_close

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("tokens", "hidden"), [(1, 32), (5, 123), (11, 896)])
@pytest.mark.parametrize("with_residual", [True, False])
def test_add_rms_norm(tokens: int, hidden: int, dtype: torch.dtype, with_residual: bool) -> None:
    x, residual = torch.randn(tokens, hidden).to(dtype), torch.randn(tokens, hidden).to(dtype)
    weight = torch.rand(hidden).to(dtype)
    args = (x, residual if with_residual else None, weight, 1e-6)
    expected = norms.add_rms_norm(*args, lane_sms=2, impl="reference")
    actual = norms.add_rms_norm(*args, lane_sms=2, impl="triton")
    assert_close(actual[0], expected[0])
    assert torch.equal(actual[1], expected[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("tokens", "width"), [(1, 16), (7, 129), (3, 2050)])
def test_swiglu(tokens: int, width: int, dtype: torch.dtype) -> None:
    packed = torch.randn(tokens, 2 * width).to(dtype)
    expected = activations.swiglu(packed, lane_sms=1, impl="reference")
    assert_close(activations.swiglu(packed, lane_sms=1, impl="triton"), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_norm", [True, False])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim", "slots"),
    [(4, 2, 32, 16), (7, 1, 80, 1), (9, 3, 64, 3), (8, 8, 128, 256)],
)
def test_rotate_and_store(
    heads: int, kv_heads: int, head_dim: int, slots: int, dtype: torch.dtype, with_norm: bool
) -> None:
    tokens, pages = 6, 7
    qkv = torch.randn(tokens, (heads + 2 * kv_heads) * head_dim).to(dtype)
    q_norm, k_norm = ((torch.rand(head_dim).to(dtype) if with_norm else None) for _ in range(2))
    cos_sin = torch.randn(50, head_dim)
    positions = torch.tensor([0, 49, 3, 3, 7, 8], dtype=torch.int32)
    slot = torch.randperm(pages * slots)[:tokens].int()
    slot[2] = -1
    results = []
    for impl in ("reference", "triton"):
        key, value = torch.zeros(2, pages, kv_heads, slots, head_dim).to(dtype)
        q = rotary.rotate_and_store(
            qkv,
            q_norm,
            k_norm,
            cos_sin,
            positions,
            slot,
            key,
            value,
            heads,
            kv_heads,
            1e-6,
            lane_sms=2,
            impl=impl,
        )
        results.append((q, key, value))
    for actual, expected in zip(results[1], results[0], strict=True):
        assert_close(actual, expected)
