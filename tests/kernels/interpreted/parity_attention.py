"""Attention: the Triton kernels in the interpreter against their references."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel_cases import PagedCase, assert_close, paged_case

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# Query heads, kv heads, head dim, slots per page: every ratio class, every head dim, pages smaller and larger
# than tiles.
SHAPES = [(2, 2, 32, 16), (6, 2, 64, 1), (7, 1, 80, 3), (8, 1, 128, 256), (4, 1, 96, 16)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim", "slots"), SHAPES)
def test_prefill(heads: int, kv_heads: int, head_dim: int, slots: int, dtype: torch.dtype) -> None:
    case = paged_case(
        [5, 1, 19, 33],
        [0, 70, 3, 64],
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        slots=slots,
        dtype=dtype,
    )
    assert_close(case.prefill("triton"), case.prefill("reference"))


def test_prefill_of_one_long_prompt() -> None:
    case = paged_case([150], [37], heads=4, kv_heads=2, head_dim=32, slots=16, dtype=torch.bfloat16)
    assert_close(case.prefill("triton"), case.prefill("reference"))


def test_prefill_leaves_padding_rows_and_empty_sequences_alone() -> None:
    case = paged_case([3, 0, 4], [2, 0, 0], heads=2, kv_heads=1, head_dim=32, slots=4)
    expected = case.prefill("reference")
    padded_q = torch.cat((case.q_TNH, torch.full((9, 2, 32), float("nan"))))
    padded = PagedCase(**{**vars(case), "q_TNH": padded_q})
    assert_close(padded.prefill("triton")[:7], expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim", "slots"), SHAPES)
def test_decode(heads: int, kv_heads: int, head_dim: int, slots: int, dtype: torch.dtype) -> None:
    case = paged_case(
        [1, 1, 1], [0, 130, 64], heads=heads, kv_heads=kv_heads, head_dim=head_dim, slots=slots, dtype=dtype
    )
    expected = case.decode("reference")
    for split_count in (1, 3):
        assert_close(case.decode("triton", split_count=split_count), expected)


@pytest.mark.parametrize("split_count", [1, 2])
def test_decode_of_a_padding_row_is_zero(split_count: int) -> None:
    case = paged_case([1, 1], [20, 3], heads=4, kv_heads=2, head_dim=32, slots=16)
    case.context_lens_B[1] = 0
    out = case.decode("triton", split_count=split_count)
    assert_close(out, case.decode("reference"))
    assert not out[1].any()


@settings(max_examples=6, deadline=None)
@given(
    lens=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 90)), min_size=1, max_size=4),
    slots=st.sampled_from([1, 5, 16]),
    group=st.sampled_from([1, 3, 8]),
    seed=st.integers(0, 99),
)
def test_ragged_batches(lens: list[tuple[int, int]], slots: int, group: int, seed: int) -> None:
    queries, cached = [q for q, _ in lens], [c for _, c in lens]
    case = paged_case(queries, cached, heads=group, kv_heads=1, head_dim=32, slots=slots, seed=seed)
    assert_close(case.prefill("triton"), case.prefill("reference"))
    case = paged_case([1] * len(lens), cached, heads=group, kv_heads=1, head_dim=32, slots=slots, seed=seed)
    assert_close(case.decode("triton"), case.decode("reference"))
