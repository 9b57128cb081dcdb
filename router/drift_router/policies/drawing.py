"""The operator's weights decide between nodes that are as good as each other."""

from __future__ import annotations

from collections.abc import Sequence

from drift_router.policies.predicting import Outlook

BAND = 0.01
"""Costs that differ by less than this share are equal: rates are known to some percent at best."""


def best(outlooks: Sequence[Outlook], draw: float) -> tuple[Outlook, bool]:
    """(the one with the least cost, whether it was drawn among several); `draw` is in [0, 1)."""
    if len(outlooks) == 1:
        return outlooks[0], False
    costs = [outlook.cost_s for outlook in outlooks]
    near_s = min(costs) * (1.0 + BAND)
    equal = [outlook for outlook, cost_s in zip(outlooks, costs, strict=True) if cost_s <= near_s]
    if len(equal) == 1:
        return equal[0], False
    weights = [outlook.node.weight * outlook.node.warmth for outlook in equal]
    left = draw * sum(weights)
    for outlook, weight in zip(equal, weights, strict=True):
        left -= weight
        if left < 0.0:
            return outlook, True
    return equal[-1], True
