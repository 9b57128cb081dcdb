"""Forecasts against reference implementations, and the floor that they make."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_operator.levers.forecasting import LEAST_POINTS, MOST_GROWTH, Forecaster, Holt, Kalman

DEMAND = (3.0, 3.4, 2.9, 4.1, 5.0, 6.2, 5.8, 7.5, 7.1, 8.4, 8.0, 8.3)

FILTERPY = (
    (2.999997, 0.0),
    (3.4, 0.400002),
    (3.044928, -0.050723),
    (3.784336, 0.284923),
    (4.651584, 0.477695),
    (5.731422, 0.642761),
    (6.077176, 0.572078),
    (7.062132, 0.660771),
    (7.434506, 0.603038),
    (8.199826, 0.63407),
    (8.469001, 0.566213),
    (8.718301, 0.508208),
)
"""Level and trend of filterpy 2.0.0's KalmanFilter with F = [[1, 1], [0, 1]], Q = diag(0.1, 0.01), R = 1, P = 1e6 I.
The last ones are also those of statsmodels 0.15.0's UnobservedComponents (lltrend) with these variances."""

STATSMODELS_LEVELS = (
    3.35,
    3.9025,
    4.638625,
    5.624756,
    5.946584,
    6.950169,
    7.279453,
    8.085122,
    8.303701,
    8.547805,
)
STATSMODELS_AHEAD = (9.014933, 9.482062, 9.949191, 10.416319)
"""Of statsmodels 0.15.0's Holt with smoothing_level 0.5 and smoothing_trend 0.1, begun with the second point and the
first difference."""


def test_the_kalman_filter_is_the_reference_one() -> None:
    made = Kalman()
    for value, (level, trend) in zip(DEMAND, FILTERPY, strict=True):
        made = made.update(value)
        assert made.level == pytest.approx(level, abs=1e-5)
        assert made.trend == pytest.approx(trend, abs=1e-5)


def test_holts_smoothing_is_the_reference_one() -> None:
    made = Holt()
    for value in DEMAND[:2]:
        made = made.update(value)
    for value, level in zip(DEMAND[2:], STATSMODELS_LEVELS, strict=True):
        made = made.update(value)
        assert made.level == pytest.approx(level, abs=1e-6)
    assert [made.forecast(ahead) for ahead in (1, 2, 3, 4)] == pytest.approx(STATSMODELS_AHEAD, abs=1e-6)


@pytest.mark.parametrize("predictor", ["Kalman", "HoltWinters"])
def test_demand_has_no_scale(predictor: str) -> None:
    small, large = Forecaster.of(predictor, 4), Forecaster.of(predictor, 4)
    for value in DEMAND:
        small, large = small.update(value), large.update(1000 * value)
    assert small.floor is not None
    assert large.floor == pytest.approx(1000 * small.floor, rel=1e-3)


@pytest.mark.parametrize("predictor", ["Kalman", "HoltWinters"])
def test_a_steady_rise_is_foreseen(predictor: str) -> None:
    made = Forecaster.of(predictor, 4)
    for step in range(40):
        made = made.update(100.0 + step)
    assert made.floor == pytest.approx(143.0, abs=0.5)


def test_nothing_is_forecast_without_a_predictor_or_from_few_points() -> None:
    without, early = Forecaster.of("None", 4), Forecaster.of("Kalman", 4)
    for index, value in enumerate(DEMAND):
        without, early = without.update(value), early.update(value)
        assert without.floor is None
        assert (early.floor is None) is (index + 1 < LEAST_POINTS)


def test_what_forecasts_fell_short_lately_is_added() -> None:
    made = Forecaster.of("Kalman", 4)
    for _ in range(20):
        made = made.update(100.0)
    assert made.floor == pytest.approx(100.0, abs=0.1)
    for value in (110.0, 120.0, 110.0, 100.0, 100.0, 100.0, 100.0, 100.0):
        made = made.update(value)
    assert made.made[-1] < 105.0
    assert made.floor is not None
    assert 103.0 < made.floor <= 130.0


@given(st.lists(st.floats(0.0, 1e9), min_size=1, max_size=80), st.sampled_from(["Kalman", "HoltWinters"]))
def test_the_floor_keeps_its_bounds(values: list[float], predictor: str) -> None:
    made = Forecaster.of(predictor, 4)
    for value in values:
        made = made.update(value)
        assert made.floor is None or 0.0 <= made.floor <= MOST_GROWTH * value
        assert len(made.made) <= 4
        assert len(made.shortfalls) <= 40
