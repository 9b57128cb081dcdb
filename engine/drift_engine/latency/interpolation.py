"""Coefficients at any SM count from those at a few."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

Shape = Callable[[int], float]
"""How the time of a common load goes with the SM count: positive, not growing. Only its proportions matter."""


def weights(sms: int, known: Sequence[int], shape: Shape | None) -> tuple[tuple[int, float], ...]:
    """(index, weight) of the `known` SM counts, ascending, whose weighted coefficients make those of `sms`.

    Between two known counts the shape says how far along it is; outside it scales the nearest one. Without a shape
    time is linear in 1/sms between them, inversely proportional below, and no shorter above, which is on the safe
    side. Coefficients that do not grow over the known counts do not grow over all.
    """
    index = bisect_left(known, sms)
    if index < len(known) and known[index] == sms:
        return ((index, 1.0),)
    if index == 0:
        return ((0, _ratio(sms, known[0], shape, without=known[0] / sms)),)
    if index == len(known):
        return ((index - 1, _ratio(sms, known[-1], shape, without=1.0)),)
    share = _share(sms, known[index - 1], known[index], shape)
    return ((index - 1, share), (index, 1 - share))


def _ratio(sms: int, nearest: int, shape: Shape | None, without: float) -> float:
    if shape is None or shape(nearest) <= 0:
        return without
    ratio = shape(sms) / shape(nearest)
    return max(1.0, ratio) if sms < nearest else min(1.0, ratio)


def _share(sms: int, below: int, above: int, shape: Shape | None) -> float:
    """Of the smaller count, in what lies between."""
    if shape is not None:
        slow, fast = shape(below), shape(above)
        if slow > fast * 1.001:  # a flat stretch tells nothing
            return min(1.0, max(0.0, (shape(sms) - fast) / (slow - fast)))
    return (1 / sms - 1 / above) / (1 / below - 1 / above)
