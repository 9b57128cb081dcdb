"""A service under the levers in virtual time: `plant` says how nodes do, the levers' set-points and numbers of nodes
act on them, and what happened can be asked.

Each node's own planner takes the best split within the bounds that it was given, by what it believes; `optimism`
makes it believe that decode steps are so much quicker beside a prefill than they are.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import numpy as np

import lever_scenes
import plant
from drift_engine import wire
from drift_operator.driftservice import DriftService
from drift_operator.levers import levers
from drift_operator.levers.decisions import Decision
from drift_operator.levers.levers import Outcome
from drift_operator.levers.observations import Node, Observation, Replicas, Router
from drift_operator.levers.setpoints import SetPoint
from drift_router.counters import LENGTH_EDGES_TOKENS, TBT_EDGES_S, TTFT_EDGES_S, Histogram
from drift_router.pictures import LengthClass, Totals

START_S = 20.0
"""From a pod's making to its first request."""

MAX_RUNNING = 256

Rate = Callable[[float], float]
"""Requests a second at a time."""


@dataclass
class Machine:
    """A node: what it was told, and how it does."""

    name: str
    made_s: float
    slowness: float = 1.0
    point: SetPoint | None = None
    queue: float = 0.0
    flow: plant.Flow | None = None
    split: wire.Split | None = None
    share: float = 0.0

    def ready(self, now_s: float) -> bool:
        return now_s - self.made_s >= START_S


@dataclass
class ClosedLoop:
    service: DriftService
    rate: Rate
    demand: plant.Demand = dataclasses.field(default_factory=plant.Demand)
    replicas: int = 1
    optimism: float = 1.0
    delay_s: float = 0.0
    """By which what is observed is late, in whole steps."""
    seed: int = 0
    now_s: float = 1000.0
    state: levers.State = levers.BEGINNING
    machines: list[Machine] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    outcome: Outcome | None = None
    judged: list[tuple[float, int, int]] = field(default_factory=list)
    """(when, requests, of those that missed either target)"""
    counts: list[int] = field(default_factory=list)
    pressures: list[float | None] = field(default_factory=list)
    sent: int = 0

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)
        slo = self.service.spec.slo
        self._targets = wire.Targets(slo.ttft.target_ms, slo.ttft.per_token_ms, slo.tbt.target_ms)
        self._began_s = self.now_s
        self._made = 0
        self._seen: deque[Observation] = deque()
        self._totals = lever_scenes.totals(uptime_s=0.0)
        self._totals = msgspec.structs.replace(
            self._totals,
            ttft=Histogram.over(TTFT_EDGES_S, slo.ttft.target_ms / 1000),
            tbt=Histogram.over(TBT_EDGES_S, slo.tbt.target_ms / 1000),
        )
        for _ in range(self.replicas):
            self._make(self.now_s - START_S)

    def run(self, seconds: float, step_s: float = 1.0) -> None:
        for _ in range(round(seconds / step_s)):
            self.now_s += step_s
            self._flow(step_s)
            self._seen.append(self.observation())
            while len(self._seen) > 1 + round(self.delay_s / step_s):
                self._seen.popleft()
            self._steer(self._seen[0])

    def missed_share(self, since_s: float) -> float:
        """Of the requests since so many seconds after the beginning."""
        rows = [row for row in self.judged if row[0] >= self._began_s + since_s]
        requests = sum(row[1] for row in rows)
        return sum(row[2] for row in rows) / requests if requests else 0.0

    def of(self, lever: str) -> list[Decision]:
        return [decision for decision in self.decisions if decision.lever == lever]

    def observation(self) -> Observation:
        ready = [machine for machine in self.machines if machine.ready(self.now_s)]
        return Observation(
            tuple(self._node(machine) for machine in self.machines),
            (Router("r", self._totals, age_s=0.5),),
            Replicas(self.replicas, len(self.machines), len(self.machines) - len(ready)),
        )

    # what the service does

    def _flow(self, step_s: float) -> None:
        ready = [machine for machine in self.machines if machine.ready(self.now_s)]
        arrived = int(self._random.poisson(self.rate(self.now_s - self._began_s) * step_s))
        weights = [machine.point.weight if machine.point else 1.0 for machine in ready]
        rooms = [weight / (1.0 + machine.queue) for weight, machine in zip(weights, ready, strict=True)]
        whole = sum(rooms)
        kept_ttft = kept_tbt = missed_ttft = missed_tbt = missed = 0
        for machine, room in zip(ready, rooms, strict=True):
            machine.share = room / whole if whole else 0.0
            mine = arrived * machine.share / step_s
            cost = self._split(machine, mine)
            found = machine.flow = plant.flow(
                cost, self.demand, mine, machine.queue, self._targets, MAX_RUNNING
            )
            machine.split = wire.Split(cost.decode_sms, cost.prefill_sms)
            machine.queue = plant.queue_after(machine.queue, mine, found.served_per_s, step_s)
            requests = round(mine * step_s)
            late = int(self._random.binomial(requests, min(1.0, max(0.0, 1 - found.ttft_kept))))
            jerky = int(self._random.binomial(requests, min(1.0, max(0.0, 1 - found.tbt_kept))))
            kept_ttft, missed_ttft = kept_ttft + requests - late, missed_ttft + late
            kept_tbt, missed_tbt = kept_tbt + requests - jerky, missed_tbt + jerky
            missed += max(late, jerky)
        self._count(step_s, (kept_ttft, missed_ttft), (kept_tbt, missed_tbt))
        self.judged.append((self.now_s, kept_ttft + missed_ttft, missed))
        self.counts.append(len(ready))

    def _split(self, machine: Machine, rate_per_s: float) -> wire.SplitCost:
        believed = [
            msgspec.structs.replace(cost, contention=max(1.0, cost.contention / self.optimism))
            for cost in plant.costs()
        ]
        bounds = machine.point.bounds if machine.point else None
        chosen = plant.planned(believed, bounds, self.demand, rate_per_s, self._targets, MAX_RUNNING)
        truth = next(cost for cost in plant.costs() if cost.decode_sms == chosen.decode_sms)
        return _slower(truth, machine.slowness)

    def _count(self, step_s: float, ttft: tuple[int, int], tbt: tuple[int, int]) -> None:
        before, demand, requests = self._totals, self.demand, sum(ttft)
        place = next(
            (i for i, edge in enumerate(LENGTH_EDGES_TOKENS) if demand.new_tokens <= edge),
            len(LENGTH_EDGES_TOKENS),
        )
        classes = list(before.classes)
        one = classes[place]
        classes[place] = LengthClass(
            one.up_to_tokens,
            one.requests + requests,
            one.uncached_tokens + requests * demand.new_tokens,
            one.ttft_kept + ttft[0],
            one.ttft_missed + ttft[1],
        )
        self._totals = Totals(
            before.uptime_s + step_s,
            before.requests + requests,
            0,
            0,
            before.prompt_tokens + requests * demand.prompt_tokens,
            before.cached_tokens + requests * demand.cached_tokens,
            before.output_tokens + requests * demand.output_tokens,
            before.ttft_kept + ttft[0],
            before.ttft_missed + ttft[1],
            before.tbt_kept + tbt[0],
            before.tbt_missed + tbt[1],
            before.ttft,
            before.tbt,
            tuple(classes),
        )

    # what the levers do

    def _steer(self, observation: Observation) -> None:
        self.state, outcome = levers.step(self.state, self.service, observation, self.now_s)
        self.outcome = outcome
        self.decisions += outcome.decisions
        self.pressures.append(outcome.pressure)
        self.sent += len(outcome.set_points)
        machines = {machine.name: machine for machine in self.machines}
        for point in outcome.set_points:
            machines[point.node].point = point
        if outcome.replicas is not None:
            self.replicas = outcome.replicas
        while len(self.machines) < self.replicas:
            self._make(self.now_s)
        for name in outcome.victims[: max(0, len(self.machines) - self.replicas)]:
            self.machines.remove(machines[name])

    def _make(self, at_s: float) -> None:
        self.machines.append(Machine(f"n{self._made}", at_s))
        self._made += 1

    def _node(self, machine: Machine) -> Node:
        flow, point = machine.flow, machine.point
        ready = machine.ready(self.now_s)
        own = tuple(_slower(cost, machine.slowness) for cost in plant.costs())
        one_s = plant.prefill_s(own[len(own) // 2], self.demand)
        waiting = flow.waiting if flow else 0.0
        report = lever_scenes.gpu_report(
            machine.name,
            ready=ready,
            costs=own,
            whole=_slower(plant.whole(), machine.slowness),
            split=machine.split,
            epoch=point.epoch if point else 0,
            generation=point.generation if point else 0,
            applied=point is not None,
            bounds=point.bounds if point else None,
            weight=point.weight if point else 1.0,
            in_flight=math.ceil(machine.queue + (flow.rows if flow else 0.0)),
            running=math.ceil(flow.rows) if flow else 0,
            queued_tokens=round((machine.queue + waiting) * self.demand.new_tokens),
            prefill_tokens_per_s=self.demand.new_tokens / one_s,
            tbt_p50_ms=1000 * flow.tbt_s if flow else 0.0,
            tbt_p99_ms=1000 * flow.tbt_s * (1 + 2.3 * plant.SPREAD) if flow else 0.0,
            uptime_s=self.now_s - machine.made_s,
        )
        return Node(machine.name, report, 0.5, ready, started_s=machine.made_s)


def _slower(cost: wire.SplitCost, by: float) -> wire.SplitCost:
    a, b, c, d = (by * value for value in cost.prefill_s)
    x, y, z = (by * value for value in cost.decode_s)
    return msgspec.structs.replace(cost, prefill_s=(a, b, c, d), decode_s=(x, y, z))
