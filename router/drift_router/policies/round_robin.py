"""In turn, each node as often as its weight says."""

from __future__ import annotations

from collections.abc import Sequence

from drift_router.snapshots import Node

GOLDEN = 0.6180339887498949
"""Multiples of it, less their whole part, fall evenly into [0, 1) however many there are."""


def choose(nodes: Sequence[Node], turn: int) -> Node:
    """Every round of as many turns as there are nodes goes over the weights in equal strides: with equal weights over
    every node once. Where a round begins changes, so that over many rounds unequal ones get what they should."""
    count = len(nodes)
    stride, place = divmod(turn, count)
    weights = [node.weight * node.warmth for node in nodes]
    left = sum(weights) * (place + (stride * GOLDEN) % 1.0) / count
    for node, weight in zip(nodes, weights, strict=True):
        left -= weight
        if left < 0.0:
            return node
    return nodes[-1]
