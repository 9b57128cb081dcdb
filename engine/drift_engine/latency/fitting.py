"""Calibration: both formulas over all SM counts from a list of timed passes, in one least-squares problem.

A coefficient at an SM count is the sum of what it grows by from the largest count down to that one. Those increments
are the unknowns: where none is negative, no coefficient is, and none grows with the SM count. Rows are divided by
the pass's time, so that relative errors count. (Unconstrained fits of the same formulas, published with the paper's
code, have negative quadratic terms at some SM counts.)

Passes should be measured alone on their lane, each as the median of a few repeats, with batch and context varied
independently of each other: the formulas cannot be told apart otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from drift_engine.latency import nnls
from drift_engine.latency.costs import (
    DecodeCost,
    Features,
    PrefillCost,
    decode_features,
    prefill_features,
)
from drift_engine.latency.interpolation import weights
from drift_engine.latency.loads import Kind, Load

_FUSED = 4  # index of the fused constant among the prefill features


class Measurement(msgspec.Struct, frozen=True, gc=False):
    """A pass that ran alone on a lane of `sms` SMs."""

    load: Load
    sms: int
    seconds: float
    weight: float = 1.0  # below 1: an assumption, which real measurements overrule


class Fit(msgspec.Struct, frozen=True, gc=False):
    """Costs by SM count, each phase at the counts where it was measured, and how well they say what was measured."""

    prefill: dict[int, PrefillCost]
    decode: dict[int, DecodeCost]
    mape: float  # mean of |fitted - observed| / observed
    worst: float  # the largest of those
    measurements: int


def fit(measurements: Sequence[Measurement]) -> Fit:
    """Raises ValueError when there is nothing to fit but assumptions, or a time that is none."""
    if not any(measurement.weight >= 1.0 for measurement in measurements):
        raise ValueError("no measurements to fit")
    for measurement in measurements:
        if measurement.seconds <= 0 or measurement.sms <= 0 or not measurement.load:
            raise ValueError(f"not a timed pass: {measurement}")
    sms_by_kind = {kind: {m.sms for m in measurements if m.load.kind is kind} for kind in Kind}
    fused_sms = sms_by_kind[Kind.FUSED]
    # The fused constant differs from the prefill's only where both kinds of passes tell them apart.
    both_sms = sms_by_kind[Kind.PREFILL] & fused_sms
    layout = _Layout()
    prefill = [
        layout.add(sorted(both_sms if index == _FUSED else sms_by_kind[Kind.PREFILL] | fused_sms))
        for index in range(5)
    ]
    decode = [layout.add(sorted(sms_by_kind[Kind.DECODE])) for _ in range(3)]

    matrix = np.zeros((len(measurements), layout.unknowns))
    for row, measurement in zip(matrix, measurements, strict=True):
        for coefficients, features in _terms(measurement.load, prefill, decode):
            for coefficient, feature in zip(coefficients, features, strict=True):
                for column, weight in coefficient.columns(measurement.sms):
                    row[column] += weight * feature
    matrix /= np.array([[measurement.seconds] for measurement in measurements])
    weights_M = np.array([measurement.weight for measurement in measurements])
    solution = nnls.solve(matrix * weights_M[:, None], weights_M)
    errors = np.abs(matrix @ solution - 1.0)[weights_M >= 1.0]

    increments: list[float] = solution.tolist()
    return Fit(
        prefill={sms: PrefillCost(*(c.at(sms, increments) for c in prefill)) for sms in prefill[0].known},
        decode={sms: DecodeCost(*(c.at(sms, increments) for c in decode)) for sms in decode[0].known},
        mape=float(errors.mean()),
        worst=float(errors.max()),
        measurements=len(errors),
    )


class _Coefficient:
    """One coefficient over its SM counts, ascending; unknown i is its increment at the i-th of them."""

    def __init__(self, known: list[int], first_column: int) -> None:
        self.known = known
        self._first_column = first_column

    def columns(self, sms: int) -> list[tuple[int, float]]:
        """Unknowns that make the coefficient at `sms`, with their weights."""
        if not self.known:
            return []
        return [
            (self._first_column + later, weight)
            for index, weight in weights(sms, self.known, None)
            for later in range(index, len(self.known))
        ]

    def at(self, sms: int, increments: Sequence[float]) -> float:
        return sum(weight * increments[column] for column, weight in self.columns(sms))


class _Layout:
    """Gives coefficients their columns."""

    def __init__(self) -> None:
        self.unknowns = 0

    def add(self, known: list[int]) -> _Coefficient:
        coefficient = _Coefficient(known, self.unknowns)
        self.unknowns += len(known)
        return coefficient


def _terms(
    load: Load, prefill: list[_Coefficient], decode: list[_Coefficient]
) -> list[tuple[list[_Coefficient], Features]]:
    """What a pass's time is the sum of. A fused pass does not pay decode's constant."""
    kind = load.kind
    if kind is Kind.DECODE:
        return [(decode, decode_features(load))]
    terms = [(prefill, prefill_features(load))]
    if kind is Kind.FUSED:
        terms.append((decode[:2], decode_features(load)[:2]))
    return terms
