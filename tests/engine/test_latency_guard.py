"""Contention factors: a running quantile per cell that fades when a cell is not seen."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift_engine.latency.guard import (
    DECODE_FACTOR,
    DECODE_QUANTILE,
    HALF_LIFE_S,
    MOST_FACTOR,
    Guard,
    load_class,
)
from drift_engine.latency.loads import Load

DECODE = Load.decode(16, 16 * 1024)
PREFILL = Load.prefill([(2048, 0)])
OTHER = Load.prefill([(65_536, 65_536)])


def decode_guard() -> Guard:
    return Guard(DECODE_QUANTILE, DECODE_FACTOR)


def feed(guard: Guard, ratios: list[float], start_s: float = 0.0) -> float:
    """Returns when the last ratio was seen, at a hundred a second."""
    now_s = start_s
    for ratio in ratios:
        now_s += 0.01
        guard.observe(DECODE, 32, PREFILL, ratio, now_s)
    return now_s


def test_an_unseen_cell_has_the_published_bound() -> None:
    assert decode_guard().factor(DECODE, 32, PREFILL) == DECODE_FACTOR


def test_nothing_beside_is_no_contention() -> None:
    assert decode_guard().factor(DECODE, 32, Load()) == 1.0


@pytest.mark.parametrize(("mean", "deviation"), [(1.10, 0.02), (1.10, 0.05), (1.6, 0.1), (2.5, 0.05)])
def test_the_factor_becomes_the_quantile(mean: float, deviation: float) -> None:
    rng = random.Random(0)
    guard = decode_guard()
    now_s = feed(guard, [rng.gauss(mean, deviation) for _ in range(600)])
    above = 0
    factors = []
    for _ in range(3000):
        ratio = rng.gauss(mean, deviation)
        factor = guard.factor(DECODE, 32, PREFILL)
        above += ratio > factor
        factors.append(factor)
        now_s = feed(guard, [ratio], now_s)
    assert 0.03 < above / 3000 < 0.07
    assert sum(factors) / 3000 == pytest.approx(mean + 1.645 * deviation, abs=0.5 * deviation)


def test_a_median_is_followed_too() -> None:
    rng = random.Random(1)
    guard = Guard(0.5, 1.1)
    feed(guard, [rng.gauss(1.3, 0.05) for _ in range(500)])
    assert guard.factor(DECODE, 32, PREFILL) == pytest.approx(1.3, abs=0.05)


def test_a_single_long_pass_moves_it_little() -> None:
    guard = decode_guard()
    now_s = feed(guard, [1.05] * 500)
    before = guard.factor(DECODE, 32, PREFILL)
    feed(guard, [10.0], now_s)
    assert guard.factor(DECODE, 32, PREFILL) - before < 0.05


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0.01, 100.0), min_size=1, max_size=50))
def test_factors_keep_their_bounds(ratios: list[float]) -> None:
    guard = decode_guard()
    for ratio in ratios:
        feed(guard, [ratio])
        assert 1.0 <= guard.factor(DECODE, 32, PREFILL) <= MOST_FACTOR


def test_a_cell_that_is_not_seen_fades_to_the_start() -> None:
    guard = decode_guard()
    now_s = feed(guard, [1.8] * 300)
    learned = guard.factor(DECODE, 32, PREFILL)
    assert learned == pytest.approx(1.8, abs=0.02)
    guard.observe(DECODE, 32, OTHER, 1.1, now_s + HALF_LIFE_S)  # another cell moves the clock
    assert guard.factor(DECODE, 32, PREFILL) == pytest.approx((learned + DECODE_FACTOR) / 2)
    guard.observe(DECODE, 32, OTHER, 1.1, now_s + 20 * HALF_LIFE_S)
    assert guard.factor(DECODE, 32, PREFILL) == pytest.approx(DECODE_FACTOR, abs=1e-3)


def test_cells_are_apart() -> None:
    guard = decode_guard()
    feed(guard, [2.0] * 300)
    assert guard.factor(DECODE, 64, PREFILL) == DECODE_FACTOR
    assert guard.factor(DECODE, 32, OTHER) == DECODE_FACTOR
    assert guard.factor(Load.decode(16, 10**6), 32, PREFILL) == DECODE_FACTOR


def test_the_usual_factor_is_the_median_of_what_was_seen() -> None:
    guard = decode_guard()
    assert guard.usual(32) == DECODE_FACTOR
    guard.start({32: 1.1})
    assert guard.usual(32) == 1.1
    for ratio, neighbour in ((1.2, PREFILL), (1.5, OTHER), (2.0, PREFILL + OTHER)):
        for _ in range(300):
            guard.observe(DECODE, 32, neighbour, ratio, 0.0)
    assert guard.usual(32) == pytest.approx(1.5, abs=0.02)
    assert guard.usual(64) == DECODE_FACTOR


def test_classes_are_powers_of_four() -> None:
    def prefill_class(new_tokens: int, reused_tokens: int = 0) -> int:
        return load_class(Load.prefill([(new_tokens, reused_tokens)]))

    assert prefill_class(256) == prefill_class(1023)
    assert prefill_class(1023) < prefill_class(1024) < prefill_class(4096)
    assert prefill_class(1) == prefill_class(255)  # too little to disturb
    assert prefill_class(512) < prefill_class(512, 4096) < prefill_class(512, 16_384)
    assert load_class(Load.decode(1, 4096)) == load_class(Load.decode(64, 16_000))
    assert load_class(Load.prefill([(10**9, 10**9)]) + Load.decode(1, 10**9)) < 1 << 12


def test_restored_cells_start_to_fade_when_the_clock_starts() -> None:
    guard = decode_guard()
    feed(guard, [1.8] * 300, start_s=1e6)
    restored = decode_guard()
    restored.restore(guard.states())
    learned = guard.factor(DECODE, 32, PREFILL)
    assert restored.factor(DECODE, 32, PREFILL) == learned
    restored.observe(DECODE, 32, OTHER, 1.1, 50.0)  # another boot, another clock
    assert restored.factor(DECODE, 32, PREFILL) == learned
    restored.observe(DECODE, 32, OTHER, 1.1, 50.0 + HALF_LIFE_S)
    assert restored.factor(DECODE, 32, PREFILL) == pytest.approx((learned + DECODE_FACTOR) / 2)
