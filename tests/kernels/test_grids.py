"""Launch sizes: they follow the lane, never pass it, and never vanish."""

from hypothesis import given
from hypothesis import strategies as st

from drift_kernels import grids, linear_triton


@given(
    sms=st.integers(1, 264),
    sequences=st.integers(1, 512),
    kv_heads=st.sampled_from([1, 2, 4, 8]),
    context=st.integers(1, 200_000),
)
def test_decode_splits_fill_the_lane_without_tiny_parts(
    sms: int, sequences: int, kv_heads: int, context: int
) -> None:
    splits = grids.decode_splits(sms, sequences, kv_heads, context)
    assert 1 <= splits <= grids.MAX_DECODE_SPLITS
    assert splits & (splits - 1) == 0
    if splits > 1:
        assert sequences * kv_heads * splits <= grids.DECODE_PROGRAMS_PER_SM * sms
        assert (splits - 1) * grids.MIN_SPLIT_TOKENS < context
    assert splits <= grids.decode_splits(sms + 8, sequences, kv_heads, context)


@given(sms=st.integers(1, 264), items=st.integers(1, 10**9))
def test_programs_are_bounded_by_lane_and_work(sms: int, items: int) -> None:
    for count in (grids.rows(sms, items), grids.prefill(sms, items), grids.decode(sms, items)):
        assert 1 <= count <= items
        assert count <= 4 * sms


def test_one_sequence_with_a_long_context_takes_the_lane() -> None:
    assert grids.decode_splits(132, 1, 8, 32_768) == 32
    assert grids.decode_splits(16, 1, 8, 32_768) == 4
    assert grids.decode_splits(132, 64, 8, 32_768) == 1


@given(tokens=st.integers(1, 20_000), outputs=st.integers(1, 200_000), sms=st.integers(1, 264))
def test_a_tile_fits_its_rows(tokens: int, outputs: int, sms: int) -> None:
    tile = linear_triton.choose_tile(tokens, outputs, sms, element_bytes=2)
    assert tile.rows >= min(tokens, 128)
    assert tile.rows <= max(16, 8 * tokens)


def test_narrow_tiles_are_chosen_where_wide_ones_would_leave_sms_idle() -> None:
    wide = linear_triton.choose_tile(4096, 14336, 132, element_bytes=2)
    narrow = linear_triton.choose_tile(128, 4096, 132, element_bytes=2)
    assert narrow.columns < wide.columns
