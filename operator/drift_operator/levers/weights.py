"""The second lever: each node's share of new requests, among nodes that the router finds equally good.

In: the nodes' reports. Out: a weight from 0 to 1 for each, the largest 1. A node's headroom is the least of what is
left of its TTFT target by its queue, of its TBT target by its gaps, and of its KV cache:

    headroom = 1 - max(wait / target, p99 gap / target - 1, KV use)                 smoothed
    wanted = headroom / (largest * (1 - ALIKE)), at most 1      0 for a node that leaves, rising for a new one

Nodes that are about alike all have 1, and a weight moves only by a real difference: a steady service is told nothing.
A node that keeps its promise fills its steps up to the target whenever it computes prompts, so only gaps above the
target tell of too much work.

The headroom answers to the weight, late and the more steeply the busier a node is, so what is wanted is approached
and not taken at once: down by at most half, after each step for as long as it takes to see what that did, and up
by half of the way or LEAST_RISE, after a pause that grows fourfold whenever a step up had to be taken back. So the
loop comes to rest whatever its gain and delay are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from drift_engine import wire
from drift_operator.driftservice import Slo
from drift_operator.levers.decisions import Decision
from drift_operator.levers.observations import Node

INTERVAL_S = 2.0

SMOOTH_S = 10.0
"""A queue of one long prompt comes and goes within it. Estimate."""

DWELL_S = 20.0
"""After a step of a node's weight, before it falls further: what the step did is seen by then, with 3 s of delay."""

REST_S, LONGEST_REST_S = 10.0, 960.0
"""Before a weight rises: at first, soon, because what an overload did to the weights is wrong after it; and longer
after each step up that was too many."""

BACK_OFF = 4.0
"""By which the rest grows then. Nodes of different speed under 150 loads (`tests/operator/test_levers_weights.py`)
fell 3.9 times in their first 40 minutes, and 5.2 times with 2."""

FLOOR = 0.1
"""A node that serves at all gets some requests: without any, nobody learns that it recovered."""

ALIKE = 0.3
"""Of the largest headroom by which another may be below it before nodes are told apart. Estimate: nodes under equal
load at 85 % differ by as much from moment to moment."""

STEP = 0.1
"""Weights are told in steps of it..."""

LEAST_RISE = 0.2
"""Of a weight that rises: the others carry its load meanwhile. A node whose queue has gone is at 1 again after two
rises from 0.5; with 0.1 it took four, and two nodes beside it broke a promise for 20 s longer that all three could
keep. Nodes of different speed under 150 random loads fell 8.6 times in 40 minutes, and 8.4 times with 0.1."""

STILL = 0.15
"""...and stay for differences below this."""

RAMP_S = 20.0
"""In which a new node's weight rises to that of the others: its caches are empty, and the router warms it, too."""


@dataclass(frozen=True, slots=True)
class Weighing:
    """Of one node."""

    weight: float
    headroom: float | None = None
    """Smoothed; None: unknown as yet."""
    since_s: float = -math.inf
    """When it began to serve, as far as this was seen."""
    changed_s: float = -math.inf
    rose: bool = False
    """By its last change."""
    rest_s: float = REST_S
    """Before it rises again."""


@dataclass(frozen=True, slots=True)
class WeightsState:
    nodes: Mapping[str, Weighing] = field(default_factory=dict)
    looked_s: float | None = None
    """None: never, so that nodes that serve now are not new ones."""


def headroom(report: wire.Report, slo: Slo) -> float:
    """0: it can take no more within the promise; 1: it has nothing to do."""
    queue = _queue_share(report, slo) if report.queued_tokens else 0.0
    excess = report.tbt_p99_ms / slo.tbt.target_ms - 1.0 if report.running else 0.0
    return max(0.0, 1.0 - max(queue, excess, report.kv_usage))


def _queue_share(report: wire.Report, slo: Slo) -> float:
    """Of its time to first token, what a new prompt would wait: one of the length that is worst off, where the node
    tells by length."""
    if not report.prefill_tokens_per_s:
        return math.inf
    ahead = report.ahead or (wire.Ahead(0, report.queued_tokens),)
    return max(
        one.queued_tokens
        / report.prefill_tokens_per_s
        / ((slo.ttft.target_ms + slo.ttft.per_token_ms * one.prompt_tokens) / 1000)
        for one in ahead
    )


def adopt(state: WeightsState, nodes: Sequence[Node], now_s: float) -> WeightsState:
    """With the nodes that there are; a new one has the weight that it reports, 1 where it has none."""
    first = state.looked_s is None
    held = {}
    for node in nodes:
        known = state.nodes.get(node.name)
        if known is None:
            report = node.report
            told = report is not None and report.epoch > 0
            weight = report.weight if told and report is not None else 1.0
            began_s = -math.inf if first or told or not node.serves else now_s
            # What an earlier operator told stands for as long as if this one had.
            known = Weighing(weight, None, began_s, now_s if told else -math.inf)
        held[node.name] = known
    return WeightsState(held, state.looked_s)


def move(
    state: WeightsState, slo: Slo, nodes: Sequence[Node], now_s: float
) -> tuple[WeightsState, tuple[Decision, ...]]:
    """Leaving nodes at once, the others at most every INTERVAL_S. Unknown ones keep their weight."""
    held = dict(state.nodes)
    decisions = []
    for node in nodes:
        if node.leaving and held[node.name].weight:
            text = "it leaves: requests in flight end, new ones go elsewhere"
            decisions.append(_decision(node, held[node.name].weight, 0.0, "Leaving", text, now_s))
            held[node.name] = Weighing(0.0)
    if state.looked_s is not None and now_s - state.looked_s < INTERVAL_S:
        return WeightsState(held, state.looked_s), tuple(decisions)
    passed_s = INTERVAL_S if state.looked_s is None else now_s - state.looked_s
    keep = math.exp(-passed_s / SMOOTH_S)
    rooms: dict[str, float] = {}
    for node in nodes:
        if node.report is None or not node.serves:
            continue
        now, before = headroom(node.report, slo), held[node.name].headroom
        rooms[node.name] = now if before is None else keep * before + (1 - keep) * now
        held[node.name] = replace(held[node.name], headroom=rooms[node.name])
    wanted = _wanted(rooms, {name: _ramp(held[name], now_s) for name in rooms})
    stepped = _stepped(held, wanted, now_s)
    for node in nodes:
        weighing = held[node.name]
        if (weight := stepped.get(node.name, weighing.weight)) == weighing.weight:
            continue
        text = f"headroom {rooms[node.name]:.2f}, the largest {max(rooms.values()):.2f}"
        ramps = _ramp(weighing, now_s) < 1
        decisions.append(
            _decision(node, weighing.weight, weight, "Ramp" if ramps else "Headroom", text, now_s)
        )
        held[node.name] = replace(weighing, weight=weight) if ramps else _changed(weighing, weight, now_s)
    return WeightsState(held, now_s), tuple(decisions)


def _wanted(rooms: Mapping[str, float], ramps: Mapping[str, float]) -> dict[str, float]:
    """The largest is 1, so that the only node, or one of many that are alike, is told nothing."""
    enough = (1 - ALIKE) * max(rooms.values(), default=0.0)
    shares = {name: min(1.0, room / enough) if enough > FLOOR else 1.0 for name, room in rooms.items()}
    raw = {name: ramps[name] * max(FLOOR, share) for name, share in shares.items()}
    largest = max(raw.values(), default=1.0)
    return {name: value / largest for name, value in raw.items()}


def _stepped(held: Mapping[str, Weighing], wanted: Mapping[str, float], now_s: float) -> dict[str, float]:
    """Weights after a step towards what is wanted. The largest is 1: where the only such node is to have less, the
    others get more, if they may rise."""
    raw = {name: _step(held[name], weight, now_s) for name, weight in wanted.items()}
    largest = max(raw.values(), default=1.0)
    if largest < 1.0 and not all(_rested(held[name], now_s) for name in raw if held[name].weight < 1.0):
        return {
            name: held[name].weight if held[name].weight == 1.0 else weight for name, weight in raw.items()
        }
    return {name: _told(weight / largest) for name, weight in raw.items()}


def _step(weighing: Weighing, wanted: float, now_s: float) -> float:
    weight = weighing.weight
    if not weight or _ramp(weighing, now_s) < 1:
        return _told(wanted)
    if wanted <= max(weight - STILL, FLOOR) < weight and now_s - weighing.changed_s >= DWELL_S:
        return _told(max(wanted, weight / 2))
    if wanted > weight and wanted >= min(weight + STILL, 1.0) and _rested(weighing, now_s):
        return _told(min(wanted, weight + max(LEAST_RISE, (wanted - weight) / 2)))
    return weight


def _rested(weighing: Weighing, now_s: float) -> bool:
    return now_s - weighing.changed_s >= weighing.rest_s


def _changed(weighing: Weighing, weight: float, now_s: float) -> Weighing:
    rose, rest_s = weight > weighing.weight, weighing.rest_s
    if weighing.rose and not rose:  # the last step up was one too many, or long ago
        soon = now_s - weighing.changed_s < LONGEST_REST_S
        rest_s = min(BACK_OFF * rest_s, LONGEST_REST_S) if soon else REST_S
    return replace(weighing, weight=weight, changed_s=now_s, rose=rose, rest_s=rest_s)


def _told(weight: float) -> float:
    return max(FLOOR, round(round(weight / STEP) * STEP, 6))


def _ramp(weighing: Weighing, now_s: float) -> float:
    return min(1.0, max(FLOOR, (now_s - weighing.since_s) / RAMP_S))


def _decision(node: Node, before: float, after: float, reason: str, text: str, now_s: float) -> Decision:
    return Decision("weight", f"{before:g}", f"{after:g}", reason, text, now_s, node.name)
