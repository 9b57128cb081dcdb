"""Coefficients follow the passes: through noise, outliers and changes of speed."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift_engine.latency.costs import REFERENCE_DECODE, Features, decode_features
from drift_engine.latency.loads import Load
from drift_engine.latency.online import CHANGE_PASSES, SPREAD_FITTED, SPREAD_PRIOR, Estimate
from latency_truth import truth

TRUE = truth(132).decode.coefficients
LOADS = [
    decode_features(Load.decode(rows, rows * context)) for rows in (1, 16, 64) for context in (256, 4096)
]


def time_s(features: Features, factor: float = 1.0) -> float:
    return factor * sum(c * f for c, f in zip(TRUE, features, strict=True))


def predicted_s(estimate: Estimate, features: Features) -> float:
    return sum(c * f for c, f in zip(estimate.coefficients, features, strict=True))


def wrong_start() -> Estimate:
    """Every coefficient is off, each by another factor."""
    factors = (2.0, 0.5, 1.4)
    wrong = tuple(c * factor for c, factor in zip(TRUE, factors, strict=True))
    return Estimate(wrong, SPREAD_PRIOR, REFERENCE_DECODE)


def learned(passes: int = 300, noise: float = 0.05, seed: int = 0) -> Estimate:
    rng = random.Random(seed)
    estimate = wrong_start()
    for _ in range(passes):
        features = rng.choice(LOADS)
        estimate.observe(features, time_s(features) * rng.gauss(1.0, noise))
    return estimate


def worst_error(estimate: Estimate, factor: float = 1.0) -> float:
    return max(abs(predicted_s(estimate, f) / time_s(f, factor) - 1) for f in LOADS)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 1000))
def test_noisy_passes_correct_a_wrong_start(seed: int) -> None:
    assert worst_error(learned(seed=seed)) < 0.06


@pytest.mark.parametrize("factor", [0.2, 0.5, 1.2, 2.0, 8.0])
def test_a_change_of_speed_is_followed(factor: float) -> None:
    estimate = learned(noise=0.02)
    rng = random.Random(1)
    for _ in range(150):
        features = rng.choice(LOADS)
        estimate.observe(features, time_s(features, factor) * rng.gauss(1.0, 0.02))
    assert worst_error(estimate, factor) < 0.06


@pytest.mark.parametrize("factor", [0.1, 2.0, 10.0])
def test_a_great_change_of_speed_is_followed_at_once(factor: float) -> None:
    estimate = learned(noise=0.02)
    changes = [estimate.observe(LOADS[2], time_s(LOADS[2], factor)) for _ in range(CHANGE_PASSES)]
    assert changes == [False] * (CHANGE_PASSES - 1) + [True]
    assert worst_error(estimate, factor) < 0.15


@pytest.mark.parametrize("features", LOADS)
def test_an_outlier_moves_predictions_little(features: Features) -> None:
    estimate = learned(noise=0.02)
    estimate.observe(features, time_s(features, 10.0))
    assert worst_error(estimate) < 0.1


def test_outliers_now_and_then_do_not_move_predictions() -> None:
    rng = random.Random(2)
    estimate = learned(noise=0.02)
    for _ in range(500):
        features = rng.choice(LOADS)
        factor = 10.0 if rng.random() < 0.05 else rng.gauss(1.0, 0.02)
        estimate.observe(features, time_s(features, factor))
    assert worst_error(estimate) < 0.1


def test_what_no_pass_visits_is_remembered() -> None:
    """A thousand equal passes forget nothing about others than themselves."""
    estimate = Estimate(TRUE, SPREAD_FITTED, REFERENCE_DECODE)
    rng = random.Random(3)
    for _ in range(1000):
        estimate.observe(LOADS[2], time_s(LOADS[2]) * rng.gauss(1.0, 0.02))
    assert worst_error(estimate) < 0.15


def test_a_zero_can_grow() -> None:
    estimate = Estimate((0.0, *TRUE[1:]), SPREAD_FITTED, REFERENCE_DECODE)
    rng = random.Random(4)
    for _ in range(300):
        features = rng.choice(LOADS)
        estimate.observe(features, time_s(features))
    assert worst_error(estimate) < 0.05


def test_one_coefficient_is_moved_without_moving_predictions() -> None:
    estimate = learned(noise=0.02)
    before = [predicted_s(estimate, f) for f in LOADS]
    estimate.move(1, estimate.coefficients[1] * 1.02)
    assert [predicted_s(estimate, f) for f in LOADS] == pytest.approx(before, rel=0.03)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 256), st.integers(0, 100_000), st.floats(1e-6, 1e3)), min_size=1, max_size=40
    )
)
def test_any_passes_leave_possible_coefficients(passes: list[tuple[int, int, float]]) -> None:
    estimate = wrong_start()
    for rows, context, took_s in passes:
        estimate.observe(decode_features(Load.decode(rows, rows * context)), took_s)
        assert all(0 <= c < math.inf for c in estimate.coefficients)
        assert all(0 < estimate.variance(index) < math.inf for index in range(3))


def test_a_restored_estimate_goes_on_as_if_nothing_happened() -> None:
    one = learned()
    other = Estimate.restored(one.state(132))
    for estimate in (one, other):
        estimate.observe(LOADS[0], time_s(LOADS[0]) * 1.1)
    assert one.state(132) == other.state(132)
