"""Loads add up to what a pass computes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from drift_engine.latency.loads import Kind, Load

TOKENS = st.integers(0, 10_000)
CHUNKS = st.lists(st.tuples(st.integers(1, 10_000), TOKENS), max_size=5)


def test_sums_of_a_prefill() -> None:
    load = Load.prefill([(10, 100), (3, 0)])
    assert load == Load(new_tokens=13, new_squared=109, new_times_reused=1000, prefill_rows=2)


def test_kinds() -> None:
    decode, prefill = Load.decode(4, 1000), Load.prefill([(512, 0)])
    assert decode.kind is Kind.DECODE
    assert prefill.kind is Kind.PREFILL
    assert (decode + prefill).kind is Kind.FUSED
    assert Load().kind is Kind.DECODE


def test_an_empty_load_is_false() -> None:
    assert not Load()
    assert Load.decode(1, 0)
    assert Load.prefill([(1, 0)])


@given(CHUNKS, CHUNKS)
def test_rows_can_be_added_one_by_one_or_together(
    some: list[tuple[int, int]], more: list[tuple[int, int]]
) -> None:
    assert Load.prefill(some) + Load.prefill(more) == Load.prefill(some + more)


@given(TOKENS, TOKENS, CHUNKS)
def test_addition_has_no_order(rows: int, context_tokens: int, chunks: list[tuple[int, int]]) -> None:
    decode, prefill = Load.decode(rows, context_tokens), Load.prefill(chunks)
    assert decode + prefill == prefill + decode
    assert decode + Load() == decode
