"""Least squares with non-negative unknowns."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def solve(a: Array, b: Array) -> Array:
    """x >= 0 with the least |a x - b|. The active-set method of Lawson and Hanson (1974), chapter 23."""
    norms = np.linalg.norm(a, axis=0)
    norms[norms == 0] = 1.0
    # The triangle of QR has the same solutions and only as many rows as there are unknowns.
    q, r = np.linalg.qr(a / norms)
    target = q.T @ b
    x: Array = _active_set(r, target) / norms
    return x


def _active_set(a: Array, b: Array) -> Array:
    unknowns = a.shape[1]
    x = np.zeros(unknowns)
    free = np.zeros(unknowns, dtype=bool)
    tolerance = 1e-10 * max(1.0, float(np.linalg.norm(b)))
    for _ in range(10 * unknowns):  # each sets one more unknown free; the bound is for rounding errors
        gradient = a.T @ (b - a @ x)
        gradient[free] = -np.inf
        best = int(np.argmax(gradient))
        if gradient[best] <= tolerance:
            break
        free[best] = True
        x = _step_inside(a, b, x, free)
    return x


def _step_inside(a: Array, b: Array, x: Array, free: npt.NDArray[np.bool_]) -> Array:
    """The solution of the free unknowns, taking out of `free` those that would leave the allowed side."""
    while True:
        wanted = np.zeros_like(x)
        wanted[free] = np.linalg.lstsq(a[:, free], b, rcond=None)[0]
        blocked = free & (wanted <= 0)
        if not blocked.any():
            return wanted
        share = float(np.min(x[blocked] / (x[blocked] - wanted[blocked] + 1e-300)))
        x = x + share * (wanted - x)
        free &= x > 1e-14
        x[~free] = 0.0
