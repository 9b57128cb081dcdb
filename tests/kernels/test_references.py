"""The references are the kernels' definition; here they meet definitions written by others, and their contracts."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from drift_kernels import activations, attention, linear, norms, rotary
from kernel_cases import assert_close, paged_case


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def test_add_rms_norm_is_torchs_norm_of_the_sum() -> None:
    x, residual, weight = torch.randn(5, 96), torch.randn(5, 96), torch.rand(96)
    normed, total = norms.add_rms_norm(x, residual, weight, 1e-5, lane_sms=1)
    assert torch.equal(total, x + residual)
    assert_close(normed, F.rms_norm(x + residual, (96,), weight, 1e-5))
    assert norms.add_rms_norm(x, None, weight, 1e-5, lane_sms=1)[1] is x


def test_a_rows_norm_does_not_depend_on_the_batch() -> None:
    x, weight = torch.randn(37, 123), torch.rand(123)
    alone = torch.cat([norms.add_rms_norm(row, None, weight, 1e-5, lane_sms=1)[0] for row in x.chunk(len(x))])
    assert torch.equal(alone, norms.add_rms_norm(x, None, weight, 1e-5, lane_sms=1)[0])


def test_swiglu_gates_the_second_half_with_the_first() -> None:
    packed = torch.randn(3, 20)
    before = packed.clone()
    assert_close(activations.swiglu(packed, lane_sms=1), F.silu(before[:, :10]) * before[:, 10:])
    assert torch.equal(packed, before)


def test_rotation_is_a_complex_product_and_writes_only_its_slots() -> None:
    heads, kv_heads, head_dim, slots = 4, 2, 8, 3
    qkv = torch.randn(3, (heads + 2 * kv_heads) * head_dim)
    angle = torch.rand(10, head_dim // 2)
    key, value = torch.zeros(2, 4, kv_heads, slots, head_dim)
    positions, slot = torch.tensor([9, 2, 4], dtype=torch.int32), torch.tensor([7, -1, 2], dtype=torch.int32)
    cos_sin = torch.cat((angle.cos(), angle.sin()), dim=1)
    q = rotary.rotate_and_store(
        qkv, None, None, cos_sin, positions, slot, key, value, heads, kv_heads, 1e-6, lane_sms=1
    )
    split = qkv.view(3, -1, head_dim)
    turned = torch.complex(split[..., :4], split[..., 4:]) * torch.polar(
        torch.ones(3, 1, 4), angle[positions][:, None]
    )
    turned = torch.cat((turned.real, turned.imag), dim=-1)
    assert_close(q, turned[:, :heads])
    for t, (page, offset) in {0: (2, 1), 2: (0, 2)}.items():
        assert_close(key[page, :, offset], turned[t, heads : heads + kv_heads])
        assert_close(value[page, :, offset], split[t, heads + kv_heads :])
        key[page, :, offset] = value[page, :, offset] = 0
    assert not key.any()
    assert not value.any()


def test_head_norms_come_before_the_rotation() -> None:
    qkv, (q_norm, k_norm) = torch.randn(2, 3 * 8), torch.rand(2, 8)
    key, value = torch.zeros(2, 1, 1, 4, 8)
    unturned = torch.cat((torch.ones(1, 4), torch.zeros(1, 4)), dim=1)
    start, slot = torch.zeros(2, dtype=torch.int32), torch.tensor([0, 1])
    q = rotary.rotate_and_store(
        qkv, q_norm, k_norm, unturned, start, slot, key, value, 1, 1, 1e-6, lane_sms=1
    )
    assert_close(q[:, 0], F.rms_norm(qkv[:, :8], (8,), q_norm, 1e-6))
    assert_close(key[0, 0, :2], F.rms_norm(qkv[:, 8:16], (8,), k_norm, 1e-6))


@pytest.mark.parametrize("impl", ["reference", "cpu"])
@pytest.mark.parametrize("group", [1, 3])
def test_prefill_is_torchs_attention_over_the_gathered_context(impl: str, group: int) -> None:
    case = paged_case([4, 1, 9], [0, 6, 13], heads=2 * group, kv_heads=2, head_dim=16, slots=4)
    out = case.prefill(impl)
    starts = case.query_starts_B1.tolist()
    for b, context in enumerate(case.context_lens_B.tolist()):
        q = case.q_TNH[starts[b] : starts[b + 1]].transpose(0, 1)
        k, v = (
            attention.gather_pages(cache, case.page_table_BM[b], context).transpose(0, 1)
            for cache in (case.key_PKSH, case.value_PKSH)
        )
        seen = torch.ones(q.shape[1], context, dtype=torch.bool).tril(context - q.shape[1])
        expected = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=True)
        assert_close(out[starts[b] : starts[b + 1]], expected.transpose(0, 1))


@pytest.mark.parametrize("impl", ["reference", "cpu"])
def test_decode_is_the_last_row_of_a_prefill(impl: str) -> None:
    case = paged_case([1, 1, 1], [5, 0, 17], heads=4, kv_heads=2, head_dim=16, slots=4)
    assert_close(case.decode(impl), case.prefill("reference"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("impl", ["reference", "cpu", "library"])
def test_linear_is_torchs(impl: str, dtype: torch.dtype) -> None:
    x, weight, bias = torch.randn(5, 24).to(dtype), torch.randn(7, 24).to(dtype) / 5, torch.randn(7).to(dtype)
    assert_close(linear.linear(x, weight, bias, lane_sms=1, impl=impl), F.linear(x, weight, bias))


def test_broken_contracts_are_named() -> None:
    x, weight = torch.randn(2, 8), torch.rand(8)
    with pytest.raises(AssertionError, match=r"weight has shape \(7,\), expected \(8,\)"):
        norms.add_rms_norm(x, None, weight[:7], 1e-5, lane_sms=1)
    with pytest.raises(AssertionError, match=r"residual is torch.float16, expected torch.float32"):
        norms.add_rms_norm(x, x.half(), weight, 1e-5, lane_sms=1)
    with pytest.raises(AssertionError, match=r"gate_up must be contiguous"):
        activations.swiglu(torch.randn(4, 8).T, lane_sms=1)
    with pytest.raises(AssertionError, match="unknown implementation 'fast'"):
        activations.swiglu(x, lane_sms=1, impl="fast")
    with pytest.raises(AssertionError, match="outside Triton's interpreter"):
        activations.swiglu(x, lane_sms=1, impl="triton")
    case = paged_case([2], [3], heads=3, kv_heads=1, head_dim=16, slots=4)
    with pytest.raises(AssertionError, match="9 tokens of context do not fit 2 pages of 4"):
        attention.prefill(
            case.q_TNH,
            case.key_PKSH,
            case.value_PKSH,
            case.query_starts_B1,
            case.context_lens_B,
            case.page_table_BM,
            max_query_tokens=2,
            max_context_tokens=9,
            scale=1.0,
            lane_sms=1,
        )
