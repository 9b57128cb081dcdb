"""What nodes are told: bounds of the split and weight, numbered by epochs, each for a time only.

In: what every node should keep now. Out: the set-points to send at this moment: those that changed, those that a node
has not taken, and those whose time is running out. What a node reports from an earlier operator counts as sent, so a
new one tells nothing new by being new. Epochs go above every one that any node reports: nodes refuse older ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from drift_operator.levers.decisions import Fact
from drift_operator.levers.observations import Node

TTL_S = 60.0
"""A set-point holds so long at a node that hears nothing more: longer than an operator needs to come back."""

REFRESH_S = TTL_S / 3
"""Two refreshes may be lost."""

AGAIN_S = 2.0
"""Before a set-point that was not taken is sent again: reports are a moment old."""


@dataclass(frozen=True, slots=True)
class SetPoint:
    """`PUT /control/v1/split` of one node."""

    node: str
    epoch: int
    generation: int
    bounds: tuple[int, int] | None
    """Fewest and most decode SMs; None: as the node likes."""
    weight: float
    ttl_s: float = TTL_S

    def says(self, other: SetPoint) -> bool:
        """The same, whatever the epoch."""
        return replace(self, epoch=0) == replace(other, epoch=0)


@dataclass(frozen=True, slots=True)
class Sent:
    point: SetPoint
    at_s: float


@dataclass(frozen=True, slots=True)
class SentState:
    nodes: Mapping[str, Sent] = field(default_factory=dict)
    epoch: int = 0
    """The highest that was sent or reported."""


def due(
    state: SentState, nodes: Sequence[Node], wanted: Mapping[str, SetPoint], interval_s: float, now_s: float
) -> tuple[SentState, tuple[SetPoint, ...]]:
    """`wanted` of nodes that can be told something; its epochs don't matter. `interval_s` is the least time between
    two changes of one node."""
    reports = {node.name: node.report for node in nodes if node.report is not None}
    epoch = max((state.epoch, *(report.epoch for report in reports.values())))
    held = {name: sent for name, sent in state.nodes.items() if name in wanted}
    now: list[SetPoint] = []
    following = epoch
    for name, point in wanted.items():
        report, sent = reports.get(name), held.get(name)
        if sent is None and report is not None and report.epoch:
            taken = SetPoint(name, report.epoch, report.generation, report.bounds, report.weight)
            sent = Sent(taken, -math.inf)
        told_s = now_s - sent.at_s if sent is not None else math.inf
        if (
            sent is None
            or not point.says(sent.point)
            or (report is not None and report.epoch > sent.point.epoch)
        ):
            if told_s < interval_s and point.weight:
                continue
            following = epoch + 1
            chosen = replace(point, epoch=following)
        elif told_s >= REFRESH_S or (
            told_s >= AGAIN_S and report is not None and report.epoch < sent.point.epoch
        ):
            chosen = sent.point
        else:
            continue
        held[name] = Sent(chosen, now_s)
        now.append(chosen)
    return SentState(held, following), tuple(now)


def converged(state: SentState, nodes: Sequence[Node]) -> Fact:
    """Whether every node that was told something keeps it."""
    told = [(node, state.nodes[node.name].point) for node in nodes if node.name in state.nodes]
    behind = sorted(
        node.name
        for node, point in told
        if node.report is None or node.report.epoch < point.epoch or not node.report.applied
    )
    if not told:
        return Fact("Unknown", "NothingSent", "no node has been told anything yet")
    if not behind:
        return Fact("True", "Applied", "every node keeps the set-point that it was sent")
    some = ", ".join(behind[:3]) + (" and others" if len(behind) > 3 else "")
    text = f"{len(told) - len(behind)} of {len(told)} nodes keep their set-point; not yet {some}"
    return Fact("False", "WaitingForNodes", text)
