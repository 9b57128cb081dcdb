"""Coefficients over SM counts: interpolated, and never better with fewer SMs."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift_engine.latency.costs import REFERENCE_DECODE, Features, decode_features
from drift_engine.latency.curves import Curve
from drift_engine.latency.interpolation import weights
from drift_engine.latency.loads import Load
from drift_engine.latency.online import CHANGE_PASSES
from drift_engine.latency.seeds import seed_decode
from latency_truth import SMS, decode_loads, seconds, truth

LOADS = decode_loads()


def curve(prior: bool = False) -> Curve:
    return Curve(
        REFERENCE_DECODE, seed_decode, (lambda sms: truth(sms).decode.coefficients) if prior else None
    )


def time_s(of: Curve, load: Load, sms: int) -> float:
    coefficients = of.at(sms)
    assert coefficients is not None
    features: Features = decode_features(load)
    return sum(c * f for c, f in zip(coefficients, features, strict=True))


def assert_ordered(of: Curve) -> None:
    found = [of.at(sms) for sms in range(1, 160)]
    for fewer, more in pairwise(found):
        assert fewer is not None
        assert more is not None
        assert all(b <= a * (1 + 1e-12) for a, b in zip(fewer, more, strict=True))
        assert min(more) >= 0


def test_a_known_count_is_itself() -> None:
    assert weights(32, [16, 32, 64], None) == ((1, 1.0),)


@pytest.mark.parametrize("sms", [17, 24, 31])
def test_between_two_counts_is_between_their_costs(sms: int) -> None:
    (low, share), (high, rest) = weights(sms, [16, 32], None)
    assert (low, high) == (0, 1)
    assert 0 < share < 1
    assert share + rest == pytest.approx(1)


def test_time_proportional_to_the_inverse_is_interpolated_exactly() -> None:
    total = sum(weight / [16, 64][index] for index, weight in weights(32, [16, 64], None))
    assert total == pytest.approx(1 / 32)


def test_without_a_shape_fewer_sms_are_slower_and_more_no_faster() -> None:
    assert weights(8, [16, 32], None) == ((0, 2.0),)
    assert weights(64, [16, 32], None) == ((1, 1.0),)


def test_a_shape_says_how_it_goes_on() -> None:
    def saturating(sms: int) -> float:
        return 1 / min(sms, 40)

    assert weights(8, [16, 132], saturating) == ((0, 2.0),)
    assert dict(weights(64, [16, 132], saturating)) == {0: 0.0, 1: 1.0}
    assert weights(132, [64], saturating) == ((0, 1.0),)
    assert weights(80, [20], saturating) == ((0, 0.5),)


def test_a_prior_is_all_that_is_known_at_first() -> None:
    assert curve().at(64) is None
    assert curve(prior=True).at(64) == truth(64).decode.coefficients


def test_one_pass_scales_the_prior_at_every_count() -> None:
    learning = curve(prior=True)
    load = LOADS[4]
    learning.observe(decode_features(load), 132, 3 * seconds(load, 132))
    for sms in SMS:
        assert time_s(learning, load, sms) == pytest.approx(3 * seconds(load, sms), rel=0.1)
    assert_ordered(learning)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.booleans())
def test_all_counts_are_learned_in_any_order(seed: int, prior: bool) -> None:
    rng = random.Random(seed)
    learning = curve(prior)
    for _ in range(400):
        load, sms = rng.choice(LOADS), rng.choice(SMS)
        learning.observe(decode_features(load), sms, seconds(load, sms) * rng.gauss(1, 0.03))
    for sms in SMS:
        for load in LOADS:
            assert time_s(learning, load, sms) == pytest.approx(seconds(load, sms), rel=0.15)
    assert_ordered(learning)


@settings(max_examples=20, deadline=None)
@given(
    st.booleans(),
    st.lists(st.tuples(st.sampled_from(LOADS), st.sampled_from(SMS), st.floats(1e-5, 10.0)), max_size=30),
)
def test_more_sms_are_never_slower_whatever_was_timed(
    prior: bool, passes: list[tuple[Load, int, float]]
) -> None:
    learning = curve(prior)
    for load, sms, took_s in passes:
        learning.observe(decode_features(load), sms, took_s)
    if prior or passes:
        assert_ordered(learning)


def test_a_first_pass_that_contradicts_gives_way_to_what_many_said() -> None:
    learning = curve()
    load = LOADS[4]
    for _ in range(100):
        learning.observe(decode_features(load), 132, 0.010)
    learning.observe(decode_features(load), 64, 0.004)  # fewer SMs, and quicker
    assert time_s(learning, load, 132) == pytest.approx(0.010, rel=0.1)
    assert_ordered(learning)


def test_a_change_of_speed_takes_smaller_lanes_along() -> None:
    learning = curve()
    load = LOADS[4]
    for _ in range(50):
        learning.observe(decode_features(load), 132, 0.010)
        learning.observe(decode_features(load), 64, 0.012)
    for _ in range(CHANGE_PASSES):
        learning.observe(decode_features(load), 132, 0.030)
    assert time_s(learning, load, 132) == pytest.approx(0.030, rel=0.05)
    assert time_s(learning, load, 64) >= 0.0299
    assert_ordered(learning)
