"""Nodes of different speed under the weights lever alone, in virtual time: requests go by weight and by nothing else.

A router looks at queues, too; without that each node answers to its weight as strongly as it can.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

import lever_scenes
import plant
from drift_engine import wire
from drift_operator.driftservice import Slo
from drift_operator.levers import weights
from drift_operator.levers.decisions import Decision
from drift_operator.levers.observations import Node
from drift_operator.levers.weights import WeightsState

MAX_RUNNING = 256
SLO = Slo.model_validate({})
TARGETS = wire.Targets(SLO.ttft.target_ms, SLO.ttft.per_token_ms, SLO.tbt.target_ms)


class WeighedNodes:
    """`load` is the share of what the nodes can serve together. Reports are `delay_s` late."""

    def __init__(
        self,
        load: float,
        slowness: Sequence[float],
        *,
        delay_s: int,
        prompt_tokens: int,
        seed: int = 0,
    ) -> None:
        split = plant.costs()[len(plant.costs()) // 3]
        self.decisions: list[Decision] = []
        self._demand = plant.Demand(prompt_tokens=prompt_tokens, output_tokens=64)
        self._costs = [
            msgspec.structs.replace(split, prefill_s=tuple(slow * each for each in split.prefill_s))
            for slow in slowness
        ]
        most = [plant.flow(cost, self._demand, math.inf, 0.0, TARGETS, MAX_RUNNING) for cost in self._costs]
        self._rate_per_s = load * sum(flow.served_per_s for flow in most)
        self._queues = [0.0] * len(slowness)
        self._reports: collections.deque[tuple[Node, ...]] = collections.deque(maxlen=delay_s + 1)
        self._random = np.random.default_rng(seed)
        self._state = WeightsState()
        self._now_s = 0.0

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self._now_s += 1.0
            self._reports.append(self._served())
            seen = self._reports[0]
            self._state = weights.adopt(self._state, seen, self._now_s)
            self._state, made = weights.move(self._state, SLO, seen, self._now_s)
            self.decisions += made

    @staticmethod
    def turns(decisions: Iterable[Decision]) -> dict[str, int]:
        """How often each node's weight fell after it had risen, or at first."""
        fell: dict[str, bool] = {}
        found: collections.Counter[str] = collections.Counter()
        for each in decisions:
            assert each.node is not None
            falls = float(each.after) < float(each.before)
            found[each.node] += falls and not fell.get(each.node, False)
            fell[each.node] = falls
        return dict(found)

    def _served(self) -> tuple[Node, ...]:
        """A second of requests, and what the nodes say after it."""
        held = [self._state.nodes.get(f"n{place}") for place in range(len(self._costs))]
        shares = [each.weight if each is not None else 1.0 for each in held]
        arrived = float(self._random.poisson(self._rate_per_s))
        nodes = []
        for place, cost in enumerate(self._costs):
            mine = arrived * shares[place] / sum(shares)
            flow = plant.flow(cost, self._demand, mine, self._queues[place], TARGETS, MAX_RUNNING)
            self._queues[place] = plant.queue_after(self._queues[place], mine, flow.served_per_s, 1.0)
            waiting = self._queues[place] + flow.waiting
            report = lever_scenes.gpu_report(
                f"n{place}",
                queued_tokens=round(waiting * self._demand.new_tokens),
                prefill_tokens_per_s=plant.prefill_tokens_per_s(cost, self._demand),
                running=math.ceil(flow.rows),
                tbt_p99_ms=1000 * flow.tbt_s * (1 + 2.3 * plant.SPREAD),
            )
            nodes.append(Node(report.node, report, 0.5, ready=True))
        return tuple(nodes)
