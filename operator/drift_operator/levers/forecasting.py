"""What the demand will be when a node that is started now is ready.

In: the demand at equal intervals. Out: a forecast some intervals ahead, and by how much such forecasts fell short
lately. Both predictors follow a level and a trend:

    Kalman        the local linear trend model; its noises are shares of the measurement's, so demand has no scale
    HoltWinters   Holt's double exponential smoothing (no season: a promise is kept by the minute)

The floor under the number of nodes is the forecast plus the 90th percentile of recent shortfalls, after DOPD (arXiv
2511.20982).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

LEAST_POINTS = 5
"""Before a forecast is believed; Dynamo's planner waits for as many."""

Q_LEVEL, Q_TREND, R = 0.1, 0.01, 1.0
"""Variances of level, trend and measurement, in the proportions of Dynamo's planner. Only these matter."""

ALPHA, BETA = 0.5, 0.1
"""Of Holt's smoothing: the level follows within two intervals, the trend within ten. Estimate."""

SHORTFALLS = 40
"""Kept: ten minutes at 15 s."""

QUANTILE = 0.9

MOST_GROWTH = 1.3
"""Of the present demand that is forecast at most: after a sudden rise the trend points far beyond it, and what comes
faster than this is seen soon enough. Estimate."""

Matrix = tuple[tuple[float, float], tuple[float, float]]

UNKNOWN: Matrix = ((1e6, 0.0), (0.0, 1e6))
"""Covariance before the first point: that decides alone."""


@dataclass(frozen=True, slots=True)
class Kalman:
    """Level and trend (per interval) and their covariance, after `points` points."""

    level: float = 0.0
    trend: float = 0.0
    covariance: Matrix = UNKNOWN
    points: int = 0

    def update(self, value: float) -> Kalman:
        level, trend, ((a, b), (c, d)) = self.level, self.trend, self.covariance
        if self.points:  # one interval on
            level += trend
            a, b, c, d = a + b + c + d + Q_LEVEL, b + d, c + d, d + Q_TREND
        surprise, variance = value - level, a + R
        gain_level, gain_trend = a / variance, c / variance
        covariance = (
            ((1 - gain_level) * a, (1 - gain_level) * b),
            (c - gain_trend * a, d - gain_trend * b),
        )
        return Kalman(
            level + gain_level * surprise, trend + gain_trend * surprise, covariance, self.points + 1
        )

    def forecast(self, intervals: int) -> float:
        return self.level + intervals * self.trend


@dataclass(frozen=True, slots=True)
class Holt:
    """Level and trend (per interval). The first two points are their start."""

    level: float = 0.0
    trend: float = 0.0
    points: int = 0

    def update(self, value: float) -> Holt:
        if not self.points:
            return Holt(value, 0.0, 1)
        if self.points == 1:
            return Holt(value, value - self.level, 2)
        level = ALPHA * value + (1 - ALPHA) * (self.level + self.trend)
        trend = BETA * (level - self.level) + (1 - BETA) * self.trend
        return Holt(level, trend, self.points + 1)

    def forecast(self, intervals: int) -> float:
        return self.level + intervals * self.trend


@dataclass(frozen=True, slots=True)
class Forecaster:
    """A predictor and what became of its forecasts. `filter` None: there is none, and no floor."""

    filter: Kalman | Holt | None
    ahead: int
    """Intervals."""
    made: tuple[float, ...] = ()
    """Forecasts whose time has not come, the oldest first."""
    shortfalls: tuple[float, ...] = ()
    last: float = 0.0

    @classmethod
    def of(cls, predictor: str, ahead: int) -> Forecaster:
        """`predictor` as in the resource: None, HoltWinters or Kalman."""
        filters: dict[str, Kalman | Holt] = {"Kalman": Kalman(), "HoltWinters": Holt()}
        return cls(filters.get(predictor), ahead)

    def update(self, value: float) -> Forecaster:
        """One interval later. `value` must be finite."""
        if self.filter is None:
            return self
        made, shortfalls = self.made, self.shortfalls
        if len(made) == self.ahead:
            shortfalls = (*shortfalls, max(0.0, value - made[0]))[-SHORTFALLS:]
            made = made[1:]
        following = self.filter.update(value)
        if following.points >= LEAST_POINTS:
            made = (*made, max(0.0, following.forecast(self.ahead)))
        return replace(self, filter=following, made=made, shortfalls=shortfalls, last=value)

    @property
    def floor(self) -> float | None:
        """The demand to be ready for; None: nothing is forecast."""
        return min(self.made[-1] + self._shortfall(), MOST_GROWTH * self.last) if self.made else None

    def _shortfall(self) -> float:
        if not self.shortfalls:
            return 0.0
        ordered = sorted(self.shortfalls)
        return ordered[min(math.ceil(QUANTILE * len(ordered)), len(ordered)) - 1]
