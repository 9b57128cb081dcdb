"""How much of its nodes a service uses, and how much of one node less.

    pressure = demand / supply        supply: the sum over the nodes of what each carries at its best split

Requests that no number of nodes can serve in time are no demand here; what all requests together take of the nodes'
time is told apart (`throughput`), so that they are not left without nodes either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from drift_engine import wire
from drift_operator.driftservice import DriftService
from drift_operator.levers import capacity, leaving, split
from drift_operator.levers.capacity import Capacity, Use
from drift_operator.levers.demand import Demand
from drift_operator.levers.feasibility import Verdict
from drift_operator.levers.observations import Node

MOST_JUDGED = 16
"""Nodes whose capacity is computed, evenly chosen, half a millisecond each; the others are taken for their mean."""

MOST = 100.0
"""A pressure above means the same."""


@dataclass(frozen=True, slots=True)
class Load:
    rate: float
    """Requests a second that more nodes can help."""
    nodes: int
    """That serve."""
    pressure: float
    fewer: float
    """The pressure if the node that would leave had left."""
    throughput: float
    """Share of the nodes' time that all requests take."""
    fewer_throughput: float
    per_node: float
    """Requests a second that a node carries on average; 0: unknown, for there were none."""
    use: Use | None = None
    """Of a usual node at its best split."""
    decode_sms: int | None = None
    """Of that split; None: not split."""


def load(demand: Demand, nodes: Sequence[Node], verdict: Verdict, service: DriftService) -> Load | None:
    """Of the nodes that serve; None where it is unknown. A node that is unknown is taken to carry what others do."""
    known = [node for node in nodes if node.report is not None]
    if not known:
        return None
    if not demand.mix.prompts:
        return None if demand.rate else Load(0.0, len(nodes), 0.0, 0.0, 0.0, 0.0, 0.0)
    helped = [verdict.helped(edge) for edge in demand.edges]
    mix = demand.mix.only(helped)
    share = sum(one.share for one, good in zip(demand.mix.prompts, helped, strict=True) if good)
    rate = share * demand.rate
    judged = known[:: -(-len(known) // MOST_JUDGED)]
    reports = [node.report for node in judged if node.report is not None]
    found = [_ways(report, service) for report in reports]
    slo = service.spec.slo

    def carried(count: int) -> list[Capacity]:
        return [
            capacity.of_node(report, way, mix, slo, count) for report, way in zip(reports, found, strict=True)
        ]

    times = [
        capacity.throughput(report, way, demand.mix, slo) for report, way in zip(reports, found, strict=True)
    ]
    if not any(times):
        return None
    now, count = carried(len(nodes)), len(nodes)
    less = carried(max(1, count - 1))
    victim = next(iter(leaving.order(nodes)), None)
    index = next((i for i, node in enumerate(judged) if node.name == victim), None)
    per_node = _mean(now)
    use, decode_sms = _usual(reports, now, rate / count, mix, service, count)
    return Load(
        rate=rate,
        nodes=count,
        pressure=_ratio(rate, count * per_node),
        fewer=_ratio(rate, _without(less, index, count)),
        throughput=_ratio(demand.rate, count * sum(times) / len(times)),
        fewer_throughput=_ratio(demand.rate, (count - 1) * sum(times) / len(times)),
        per_node=per_node,
        use=use,
        decode_sms=decode_sms,
    )


def _ways(report: wire.Report, service: DriftService) -> tuple[capacity.Way, ...]:
    legal = sorted({one.decode_sms for one in report.legal_splits})
    spec = service.spec.multiplexing.decode_sms
    if not legal or spec is None:
        return capacity.ways(report)
    inside = split.allowed(legal, spec)
    return capacity.ways(report, (inside[0], inside[-1]))


def _usual(
    reports: Sequence[wire.Report],
    found: Sequence[Capacity],
    rate: float,
    mix: capacity.Mix,
    service: DriftService,
    nodes: int,
) -> tuple[Use | None, int | None]:
    middle = sorted(range(len(found)), key=lambda index: found[index].rate)[len(found) // 2]
    way = found[middle].way
    if way is None:
        return None, None
    use = capacity.use(way, reports[middle], rate, mix, service.spec.slo, nodes)
    return use, way.cost.decode_sms if way.split else None


def _mean(found: Sequence[Capacity]) -> float:
    return sum(one.rate for one in found) / len(found)


def _without(found: Sequence[Capacity], index: int | None, count: int) -> float:
    """What `count` nodes carry without one of them."""
    return count * _mean(found) - (found[index].rate if index is not None else _mean(found))


def _ratio(part: float, whole: float) -> float:
    if not part:
        return 0.0
    return min(MOST, part / whole) if whole > 1e-9 else MOST
