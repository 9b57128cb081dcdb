"""One formula's coefficients on lanes of one size, refined by every pass that was timed.

Recursive least squares with forgetting, on relative errors: a row is a pass's features divided by its predicted time,
so that short and long passes count alike. What sets it apart from the textbook:

- A coefficient that would become negative becomes zero, and the others take up what it leaves.
- A pass that is far off counts no more than one at the edge of the plausible does. But several in a row, all on the
  same side, are a change of speed: then the whole formula is scaled at once.
- Uncertainty never exceeds that of the start: forgetting lets it grow in directions that no pass visits.

Plain floats: numpy costs more than the arithmetic for systems of three and five unknowns.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from operator import mul

from drift_engine.latency.costs import Coefficients, Features
from drift_engine.latency.snapshots import EstimateState

FORGETTING = 0.99
"""Weight of a pass after the next one: a half-life of about 70 passes, a second or two of decoding."""

NOISE = 0.1
"""Relative standard deviation of a pass's time. Estimate: 0.02 on a quiet GPU, 0.1 and more on shared CPU cores; too
high a value only makes the first passes count a little less."""

OUTLIER = 3.0
"""Standard deviations from which on a pass counts less: the usual three sigma."""

CHANGE_PASSES = 5
"""Outliers in a row that are a change of speed. Estimate: a disturbance of one or two passes (page faults, garbage
collection, another process's time slice) is shorter, and half a dozen decode passes are soon over."""

FLOOR_SHARE = 0.1
"""Of the reference load's time, by which a coefficient is uncertain at least: so a zero can grow. Estimate."""

SPREAD_FITTED = 0.15
"""Relative uncertainty of a calibration's coefficients: about twice the published errors of such fits (8 to 9 %)."""

SPREAD_DERIVED = 0.3
"""Of those derived from other SM counts. Estimate."""

SPREAD_PRIOR = 0.5
"""Of a prior's proportions, once scaled to the first pass. Estimate."""

SPREAD_SEEDED = 1.0
"""Of proportions that are nothing but usual. Estimate."""


class Estimate:
    """Coefficients, none negative, with their covariance. `coefficients` is replaced, never changed in place."""

    __slots__ = ("_covariance", "_floors", "_outliers", "_slower", "_spread", "coefficients")

    def __init__(self, coefficients: Coefficients, spread: float, reference: Features) -> None:
        """`spread` is the relative uncertainty of each coefficient, `reference` the features of a common load."""
        self.coefficients = coefficients
        self._spread = spread
        reference_s = sum(map(mul, coefficients, reference))
        self._floors = [FLOOR_SHARE * reference_s / feature for feature in reference]
        self._outliers: list[tuple[Features, float]] = []  # the last passes, if outliers all on one side
        self._slower = False  # that side
        self._covariance: list[list[float]] = []
        self._spread_out()

    def variance(self, index: int) -> float:
        return self._covariance[index][index]

    def observe(self, features: Features, seconds: float) -> bool:
        """Learns from a pass. True when it completed a change of speed and the whole formula was scaled."""
        predicted_s = sum(map(mul, self.coefficients, features))
        # Errors relative to the observed time would draw towards short passes, so they are relative to the predicted
        # one. But a prediction that is several times too long must not make the pass look inexact.
        unit_s = min(predicted_s, 2 * seconds) if predicted_s > 0 else seconds
        row = [feature / unit_s for feature in features]
        towards = [sum(map(mul, line, row)) for line in self._covariance]
        variance = sum(map(mul, towards, row)) + NOISE * NOISE
        surprise = (seconds - predicted_s) / unit_s
        limit = OUTLIER * math.sqrt(variance)
        if abs(surprise) <= limit:
            self._outliers.clear()
            weight, keep = 1.0, FORGETTING
        else:
            if self._is_change(features, seconds, surprise > 0):
                return True
            weight, keep = limit / abs(surprise), 1.0
        step = weight * surprise / variance
        self.coefficients = tuple(
            [value + step * t for value, t in zip(self.coefficients, towards, strict=True)]
        )
        self._shrink(towards, weight / variance, 1 / keep)
        if min(self.coefficients) < 0:
            self._clip()
        self._bound()
        return False

    def move(self, index: int, value: float) -> None:
        """Sets one coefficient; the others move to where they are likeliest with it: predictions hardly change."""
        line = self._covariance[index]
        step = (value - self.coefficients[index]) / line[index]
        moved = [max(0.0, old + step * c) for old, c in zip(self.coefficients, line, strict=True)]
        moved[index] = value
        self.coefficients = tuple(moved)

    def state(self, sms: int) -> EstimateState:
        covariance = tuple(tuple(line) for line in self._covariance)
        return EstimateState(sms, self.coefficients, self._spread, covariance, tuple(self._floors))

    @classmethod
    def restored(cls, state: EstimateState) -> Estimate:
        estimate = cls.__new__(cls)
        estimate.coefficients = state.coefficients
        estimate._spread = state.spread
        estimate._covariance = [list(line) for line in state.covariance]
        estimate._floors = list(state.floors)
        estimate._outliers = []
        estimate._slower = False
        return estimate

    def _is_change(self, features: Features, seconds: float, slower: bool) -> bool:
        """Notes an outlier; scales the formula to the median of the last ones when there are enough."""
        if slower != self._slower:
            self._outliers.clear()
            self._slower = slower
        self._outliers.append((features, seconds))
        if len(self._outliers) < CHANGE_PASSES:
            return False
        predicted_s = [sum(map(mul, self.coefficients, features)) for features, _ in self._outliers]
        outliers = zip(self._outliers, predicted_s, strict=True)
        ratios = [seconds / predicted for (_, seconds), predicted in outliers if predicted > 0]
        self._outliers.clear()
        if not ratios:
            return False
        factor = statistics.median(ratios)
        self.coefficients = tuple(factor * value for value in self.coefficients)
        self._floors = [factor * floor for floor in self._floors]
        self._spread_out()  # what slowed the lane need not have slowed each coefficient alike
        return True

    def _spread_out(self) -> None:
        deviations = self._deviations()
        self._covariance = [
            [deviation * deviation if i == j else 0.0 for j in range(len(deviations))]
            for i, deviation in enumerate(deviations)
        ]

    def _deviations(self) -> list[float]:
        return [self._spread * max(pair) for pair in zip(self.coefficients, self._floors, strict=True)]

    def _shrink(self, towards: Sequence[float], by: float, grow: float) -> None:
        """The covariance after a pass. x * y before anything else: an asymmetry would grow with every pass."""
        self._covariance = [
            [(old - x * y * by) * grow for old, y in zip(line, towards, strict=True)]
            for line, x in zip(self._covariance, towards, strict=True)
        ]

    def _clip(self) -> None:
        for index in range(len(self.coefficients)):
            if self.coefficients[index] < 0:
                self.move(index, 0.0)

    def _bound(self) -> None:
        """Keeps uncertainty below its bound without touching the correlations."""
        factors = [1.0] * len(self._floors)
        for index, most in enumerate(self._deviations()):
            variance = self._covariance[index][index]
            if variance > most * most:
                factors[index] = most / math.sqrt(variance)
        if min(factors) < 1:
            self._covariance = [
                [value * (x * y) for value, y in zip(line, factors, strict=True)]
                for line, x in zip(self._covariance, factors, strict=True)
            ]
