"""Fits a handful of positive coefficients to measured times, and says how well."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from benchmarks.hardware.tables import Array

FIRST_STEP = 0.5
LAST_STEP = 0.002
"""Of a coefficient's logarithm: from 1.6-fold to 0.2 %, far below what the tables scatter."""


def fit(predict: Callable[[Sequence[float]], Array], seconds: Array, start: Sequence[float]) -> list[float]:
    """The coefficients with the least mean |log(predicted / measured)|, four digits each.

    One coefficient after the other goes up or down as long as that helps, then steps are halved. It needs no
    gradient, keeps coefficients positive, and always gives the same. The logarithm weighs all rows alike, and a few
    rows that no formula explains don't pull the others with them.
    """

    def loss(logarithms: Array) -> float:
        return float(np.abs(np.log(predict(np.exp(logarithms).tolist()) / seconds)).mean())

    best = np.log(np.asarray(start, dtype=float))
    least, step = loss(best), FIRST_STEP
    while step > LAST_STEP:
        before = least
        for index in range(len(best)):
            for change in (step, -step):
                tried = best.copy()
                tried[index] += change
                if (found := loss(tried)) < least:
                    best, least = tried, found
        if least == before:
            step /= 2
    return [float(f"{value:.4g}") for value in np.exp(best)]


def errors(
    predicted: Array, measured: Array, regimes: Mapping[str, npt.NDArray[np.bool_]]
) -> dict[str, dict[str, Any]]:
    """Rows, mean and P90 absolute percentage error, and the mean signed one: over all, and by regime."""
    return {
        name: _errors(predicted[rows], measured[rows])
        for name, rows in {"all": np.ones(len(measured), dtype=bool), **regimes}.items()
        if rows.any()
    }


def _errors(predicted: Array, measured: Array) -> dict[str, Any]:
    percent = 100 * (predicted / measured - 1)
    return {
        "rows": len(measured),
        "mean_absolute_percent": round(float(np.abs(percent).mean()), 1),
        "p90_absolute_percent": round(float(np.quantile(np.abs(percent), 0.9)), 1),
        "mean_percent": round(float(percent.mean()), 1),
    }
