"""One service of the stand-in fleet: requests that exist as rates only, its nodes and its routers.

Time comes in from outside: `advance(now_s)` lets everything happen since the last time. Whoever wants to know
something advances first, so a service that nobody asks about costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import plant
from drift_engine import wire
from drift_engine.api.setpoints import SetPoints
from drift_router import counters
from drift_router.counters import Histogram
from drift_router.options import Promise
from drift_router.pictures import LengthClass, Totals
from plant import Demand, Flow

STEP_S = 0.25
"""Of the plant's queues: a few steps in every interval that anything is steered by."""
PATIENCE_S = 0.1
"""Of a queue at which a router sends a node half as many requests. Estimate."""

STEPS = 240
"""At once at most: a service that nobody asked about for longer has missed the rest."""


class Tally:
    """What a router counts. As the load is made of rates, these are sums of shares; reports tell whole requests."""

    def __init__(self, promise: Promise, now_s: float) -> None:
        self.start_s = now_s
        self.requests = self.overloaded = self.failed = 0.0
        self.prompt_tokens = self.cached_tokens = self.output_tokens = 0.0
        self.kept = {"ttft": 0.0, "tbt": 0.0}
        self.missed = {"ttft": 0.0, "tbt": 0.0}
        self.ttft = _Observed(counters.TTFT_EDGES_S, promise.ttft_ms / 1000)
        self.tbt = _Observed(counters.TBT_EDGES_S, promise.tbt_ms / 1000)
        self.classes = {edge: [0.0, 0.0, 0.0, 0.0] for edge in (*counters.LENGTH_EDGES_TOKENS, None)}
        """Requests, uncached tokens, kept and missed TTFT."""

    def serve(self, requests: float, demand: Demand, flow: Flow) -> None:
        self.requests += requests
        self.prompt_tokens += requests * demand.prompt_tokens
        self.cached_tokens += requests * demand.cached_tokens
        self.output_tokens += requests * demand.output_tokens
        for name, share, observed, mean_s in (
            ("ttft", flow.ttft_kept, self.ttft, flow.ttft_s),
            ("tbt", flow.tbt_kept, self.tbt, flow.tbt_s),
        ):
            self.kept[name] += requests * share
            self.missed[name] += requests * (1 - share)
            observed.add(requests, share, mean_s)
        edge = next(edge for edge in self.classes if edge is None or demand.new_tokens <= edge)
        found = self.classes[edge]
        for index, more in enumerate((1, demand.new_tokens, flow.ttft_kept, 1 - flow.ttft_kept)):
            found[index] += requests * more

    def totals(self, now_s: float) -> Totals:
        return Totals(
            uptime_s=now_s - self.start_s,
            requests=int(self.requests),
            overloaded=int(self.overloaded),
            failed=int(self.failed),
            prompt_tokens=int(self.prompt_tokens),
            cached_tokens=int(self.cached_tokens),
            output_tokens=int(self.output_tokens),
            ttft_kept=int(self.kept["ttft"]),
            ttft_missed=int(self.missed["ttft"]),
            tbt_kept=int(self.kept["tbt"]),
            tbt_missed=int(self.missed["tbt"]),
            ttft=self.ttft.histogram,
            tbt=self.tbt.histogram,
            classes=tuple(LengthClass(edge, *map(int, sums)) for edge, sums in self.classes.items()),
        )


class _Observed:
    """A histogram with an edge at the target."""

    def __init__(self, edges: tuple[float, ...], target_s: float) -> None:
        self._target_s = target_s
        self._shape = Histogram.over(edges, target_s)
        self._counts = [0.0] * len(self._shape.counts)
        self._sum_s = 0.0

    def add(self, requests: float, share: float, mean_s: float) -> None:
        """So many kept the target and the rest did not, by as much as the mean allows."""
        for part, value_s in (
            (share, min(mean_s, self._target_s)),
            (1 - share, max(mean_s, 1.5 * self._target_s)),
        ):
            at = sum(edge < value_s for edge in self._shape.edges)
            self._counts[at] += requests * part
            self._sum_s += requests * part * value_s

    @property
    def histogram(self) -> Histogram:
        return Histogram(self._shape.edges, [int(count) for count in self._counts], self._sum_s)


@dataclass
class NodeState:
    """What the plant knows of a node."""

    name: str
    targets: wire.Targets
    max_running: int
    max_waiting: int
    choices: tuple[wire.SplitCost, ...]
    """Empty: it can't be split."""
    whole: wire.SplitCost
    set_points: SetPoints = field(default_factory=SetPoints)
    serving: Callable[[], bool] = lambda: False
    """Whether routers send it requests."""
    cost: wire.SplitCost | None = None
    flow: Flow | None = None
    queue: float = 0.0
    in_flight: float = 0.0
    open_requests: int = 0
    """That came over a socket."""
    left: tuple[float, float, float] | None = None
    """When it was told to leave, with how many requests, and how long these take."""
    prompt_tokens: float = 0.0
    cached_tokens: float = 0.0

    def share(self, now_s: float) -> float:
        """Of new requests, beside those of others: its weight, and less of it the longer its queue is. Routers see
        both."""
        point = self.set_points.present(now_s)
        weight = point.weight if point is not None else 1.0
        queued_s = self.queue / self.flow.served_per_s if self.flow is not None else 0.0
        return weight / (1.0 + queued_s / PATIENCE_S)

    def leave(self, now_s: float, demand: Demand, drain_s: float | None) -> None:
        """Takes nothing new; what it has takes `drain_s`, or what answers take."""
        if self.left is None:
            wanted_s = (
                demand.output_tokens * self.flow.tbt_s + self.queue / self.flow.served_per_s
                if self.flow is not None and self.in_flight
                else 0.0
            )
            self.left = now_s, self.in_flight, wanted_s if drain_s is None else drain_s
            self.in_flight = self.leaving(now_s)

    def leaving(self, now_s: float) -> float:
        """The requests that it still has. At least one until the time is up, where a test set a time."""
        assert self.left is not None
        at_s, in_flight, wanted_s = self.left
        over_s = max(0.0, now_s - at_s)  # a step of the plant may have begun before
        return 0.0 if over_s >= wanted_s else max(1.0, in_flight) * (1 - over_s / wanted_s)

    @property
    def busy(self) -> int:
        return math.ceil(self.in_flight) + self.open_requests


class Service:
    """`demand` is what a test sets; the sums say what became of it."""

    def __init__(self, now_s: float) -> None:
        self.demand = Demand()
        self.nodes: dict[str, NodeState] = {}
        self.routers: dict[str, Tally] = {}
        """Of those that serve."""
        self.failed = 0.0
        """Requests that nobody answered: without a router or a node, or lost with the last one."""
        self.resumed = 0.0
        """That went on elsewhere when their node vanished."""
        self._at_s = now_s

    def advance(self, now_s: float) -> None:
        seconds = now_s - self._at_s
        if seconds <= 0:
            return
        idle = not self.demand.requests_per_s and not any(node.queue for node in self.nodes.values())
        steps = 1 if idle else min(STEPS, math.ceil(seconds / STEP_S))
        step_s = min(seconds, steps * STEP_S) / steps
        for step in range(1, steps + 1):
            self._step(now_s - (steps - step) * step_s, step_s)
        self._at_s = now_s

    def lose(self, node: NodeState) -> None:
        """It vanished with what it had: routers go on elsewhere."""
        del self.nodes[node.name]
        if any(other.serving() for other in self.nodes.values()):
            self.resumed += node.in_flight
        else:
            self.failed += node.in_flight

    def _step(self, now_s: float, step_s: float) -> None:
        rate_per_s = self.demand.requests_per_s
        weights = {node.name: node.share(now_s) for node in self.nodes.values() if node.serving()}
        if weights and not any(weights.values()):
            weights = dict.fromkeys(weights, 1.0)
        if not weights or not self.routers:
            self.failed += rate_per_s * step_s
            for tally in self.routers.values():
                tally.failed += rate_per_s * step_s / len(self.routers)
        whole = sum(weights.values())
        for node in self.nodes.values():
            share = weights.get(node.name, 0.0) / whole if whole and self.routers else 0.0
            self._serve(node, share * rate_per_s, now_s, step_s)

    def _serve(self, node: NodeState, rate_per_s: float, now_s: float, step_s: float) -> None:
        point = node.set_points.present(now_s)
        node.cost = cost = (
            plant.planned(
                node.choices,
                point.range if point is not None else None,
                self.demand,
                rate_per_s,
                node.targets,
                node.max_running,
            )
            if node.choices
            else node.whole
        )
        node.flow = flow = plant.flow(
            cost, self.demand, rate_per_s, node.queue, node.targets, node.max_running
        )
        queue = plant.queue_after(node.queue, rate_per_s, flow.served_per_s, step_s)
        refused = max(0.0, queue - node.max_waiting)
        node.queue = queue - refused
        accepted = max(0.0, rate_per_s * step_s - refused)
        node.prompt_tokens += accepted * self.demand.prompt_tokens
        node.cached_tokens += accepted * self.demand.cached_tokens
        if node.left is not None:
            node.in_flight = node.leaving(now_s)
        else:
            node.in_flight = flow.rows + node.queue
        for tally in self.routers.values():
            tally.serve(accepted / len(self.routers), self.demand, flow)
            tally.overloaded += refused / len(self.routers)
