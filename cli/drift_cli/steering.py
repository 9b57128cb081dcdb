"""The operator's levers on simulated nodes: its own `levers.step`, on the documents that it reads in production.

    nodes' reports, the router's report -> observation -> levers.step -> set-points, nodes that come and go

Once a second, as the operator does. A node that is wanted serves after its start-up; one that is too many takes
nothing new and leaves when it has answered. Where the levers move the number of nodes, one that died is replaced.
"""

from __future__ import annotations

import enum
import time
from collections import Counter
from collections.abc import Mapping

from drift_cli.routing import SimulatedRouter
from drift_engine.bench.results import Slo
from drift_engine.simulation.nodes import SimulatedNode, name
from drift_engine.simulation.running import Simulation
from drift_operator import manifests
from drift_operator.driftservice import DriftService
from drift_operator.levers import levers
from drift_operator.levers.decisions import Decision
from drift_operator.levers.observations import Node, Observation, Replicas, Router

LOOK_S = 1.0
"""Between two looks of the operator."""

REPORT_AGE_S = 0.5
"""Of what it sees then: between nothing and a look."""


class Levers(enum.StrEnum):
    """Which of them are moved."""

    OFF = "off"
    SPLIT = "split"
    SPLIT_WEIGHTS = "split+weights"
    ALL = "all"


MOVED: Mapping[Levers, frozenset[str]] = {
    Levers.OFF: frozenset(),
    Levers.SPLIT: frozenset({"split"}),
    Levers.SPLIT_WEIGHTS: frozenset({"split", "weight"}),
    Levers.ALL: frozenset({"split", "weight", "replicas"}),
}


class Steering:
    """Of one simulation; `decisions` are those that were carried out, the oldest first."""

    def __init__(
        self,
        simulation: Simulation,
        router: SimulatedRouter,
        moved: Levers,
        service: DriftService,
        start_up_s: float,
    ) -> None:
        """`start_up_s`: from a node's making to its first request."""
        self.decisions: list[Decision] = []
        self.counts: list[tuple[float, int]] = [(0.0, len(simulation.alive))]
        """(when, nodes that serve) wherever that changed."""
        self.looks = 0
        self.sent = 0
        """Set-points."""
        self.cpu_s = 0.0
        """Of this machine, for the levers alone."""
        self._simulation = simulation
        self._router = router
        self._moved = moved
        self._service = service
        self._start_up_s = start_up_s
        self._state = levers.BEGINNING
        self._starting = 0
        self._wanted = len(simulation.alive)
        simulation.every(LOOK_S, self._look)

    def observation(self, now_s: float) -> Observation:
        alive = self._simulation.alive.values()
        nodes = tuple(_seen(node, now_s) for node in alive)
        report = self._router.report(now_s)
        router = Router("router-0", report.totals, in_flight=self._router.in_flight, age_s=REPORT_AGE_S)
        present = sum(not node.draining for node in alive) + self._starting
        return Observation(nodes, (router,), Replicas(self._wanted, present, self._starting))

    def _look(self, now_s: float) -> None:
        observation = self.observation(now_s)
        start_s = time.process_time()
        self._state, outcome = levers.step(self._state, self._service, observation, now_s)
        self.cpu_s += time.process_time() - start_s
        self.looks += 1
        self.sent += len(outcome.set_points)
        moved = MOVED[self._moved]
        self.decisions += [decision for decision in outcome.decisions if decision.lever in moved]
        nodes = {name(index): node for index, node in self._simulation.alive.items()}
        for point in outcome.set_points:
            nodes[point.node].steer(
                epoch=point.epoch,
                generation=point.generation,
                bounds=point.bounds,
                weight=point.weight if "weight" in moved else 1.0,
                until_s=now_s + point.ttl_s,
            )
        if "replicas" in moved:
            self._count(outcome.replicas, outcome.victims, now_s)
        self._note(now_s)

    def _count(self, wanted: int | None, victims: tuple[str, ...], now_s: float) -> None:
        if wanted is not None:
            self._wanted = wanted
        alive = self._simulation.alive
        serving = [index for index, node in alive.items() if not node.draining]
        for _ in range(self._wanted - len(serving) - self._starting):
            self._starting += 1
            self._simulation.at(now_s + self._start_up_s, self._started)
        spare = len(serving) + self._starting - self._wanted
        by_name = {name(index): index for index in serving}
        for victim in [by_name[one] for one in victims if one in by_name][: max(0, spare)]:
            self._simulation.drain(victim, now_s)

    def _started(self, now_s: float) -> None:
        self._starting -= 1
        self._simulation.add(now_s, self._start_up_s)
        self._note(now_s)

    def _note(self, now_s: float) -> None:
        serving = sum(not node.draining for node in self._simulation.alive.values())
        if serving != self.counts[-1][1]:
            self.counts.append((now_s, serving))

    @property
    def moves(self) -> dict[str, int]:
        """How often each lever moved."""
        return dict(Counter(decision.lever for decision in self.decisions))


def _seen(node: SimulatedNode, now_s: float) -> Node:
    return Node(
        name(node.index),
        node.report(now_s),
        REPORT_AGE_S,
        ready=not node.draining,
        leaving=node.draining,
        started_s=node.made_s,
    )


def service(slo: Slo, moved: Levers, mode: str, least: int, most: int) -> DriftService:
    """What an operator would be told. Raises ValueError for a promise that a DriftService can't say."""
    if slo.ttft_ms is None or slo.tbt_ms is None:
        raise ValueError("--levers needs a promise of both: --slo-ttft-ms and --slo-tbt-ms")
    if not 0.5 <= slo.attainment_target <= 0.9999:
        raise ValueError(
            f"--attainment: with --levers {slo.attainment_target:g} is not between 0.5 and 0.9999"
        )
    for option, value_ms in (("--slo-ttft-ms", slo.ttft_ms), ("--slo-tbt-ms", slo.tbt_ms)):
        if value_ms < 1 or value_ms % 1:
            raise ValueError(f"{option}: with --levers {value_ms:g} is no whole number of ms from 1 on")
    share = {"attainment": slo.attainment_target}
    spec: dict[str, object] = {
        "model": {"uri": "embedded://drift-tiny"},
        "slo": {
            "ttft": {"targetMs": int(slo.ttft_ms), "perTokenMs": slo.ttft_per_token_ms, **share},
            "tbt": {"targetMs": int(slo.tbt_ms), **share},
        },
        "multiplexing": {"mode": mode},
    }
    if moved is Levers.ALL:
        spec["autoscaling"] = {"minReplicas": least, "maxReplicas": most}
    else:
        spec["replicas"] = least
    return manifests.parse(
        {
            "apiVersion": "drift.ai/v1alpha1",
            "kind": "DriftService",
            "metadata": {"name": "simulated", "generation": 1},
            "spec": spec,
        }
    )
