"""What is asked of a service: how many requests a second, and what a usual one needs.

In: the ledger's last half minute, the routers' queues, the nodes' decode rows. Out: a rate and a `capacity.Mix`; None
where too little was counted to say.
"""

from __future__ import annotations

from dataclasses import dataclass

from drift_operator.levers.attainment import DEMAND_S, Ledger, Sums
from drift_operator.levers.capacity import Mix, Prompts
from drift_operator.levers.observations import Observation

COUNTED_S = 10.0
"""Of counting before a rate is told: at 1 request a second one knows by then whether it is 0.5 or 2. Estimate."""


@dataclass(frozen=True, slots=True)
class Demand:
    rate: float
    """Requests a second, those among them that were refused for lack of room."""
    mix: Mix
    """Without prompts where there was no request."""
    edges: tuple[float, ...] = ()
    """Of the mix's classes of lengths, in its order."""


def demand(ledger: Ledger, observation: Observation, now_s: float) -> Demand | None:
    """None: unknown."""
    counted_s = ledger.counted_s(now_s)
    if counted_s < COUNTED_S or not observation.routers:
        return None
    if any(router.totals is None for router in observation.routers):
        return None
    sums = ledger.demand.all
    waiting = sum(router.queue_depth for router in observation.routers)
    rate = (sums.requests + sums.overloaded) / counted_s + waiting / DEMAND_S
    return Demand(rate, *_mix(ledger.fast.all, observation, rate))


def _mix(sums: Sums, observation: Observation, rate: float) -> tuple[Mix, tuple[float, ...]]:
    """Over the last minute: what requests are like changes less than how many there are."""
    requests = sum(length.requests for length in sums.lengths.values())
    if not requests:
        return Mix(()), ()
    edges = tuple(sorted(edge for edge, length in sums.lengths.items() if length.requests))
    lengths = [sums.lengths[edge] for edge in edges]
    prompts = tuple(
        Prompts(one.requests / requests, max(1.0, one.uncached_tokens / one.requests)) for one in lengths
    )
    answers = sums.output_tokens / max(1, sums.requests)
    if not answers and rate:
        answers = _decoded_per_s(observation) / rate
    return Mix(prompts, sums.cached_tokens / max(1, sums.requests), answers), edges


def _decoded_per_s(observation: Observation) -> float:
    """Tokens a second of all nodes, by their rows and usual gap: where the answers do not say how long they are."""
    reports = [node.report for node in observation.nodes if node.report is not None]
    return sum(1000 * r.running / r.tbt_p50_ms for r in reports if r.tbt_p50_ms > 0)
