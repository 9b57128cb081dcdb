"""A whole service in virtual time: simulated nodes, the router before them, the levers behind them, and what breaks.

Plan of it (`System`) -> `attach` to every simulation -> router, levers, losses -> what they did (`Account`)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from drift_cli import roles, routing, steering
from drift_cli.roles import Roles, TwoRouters
from drift_cli.routing import SimulatedRouter
from drift_cli.steering import Levers, Steering
from drift_engine import wire
from drift_engine.bench.results import Result, Slo
from drift_engine.errors import EngineError
from drift_engine.simulation.running import Action, Simulation
from drift_operator.levers.decisions import Decision
from drift_router.snapshots import Policy

MOST_NODES = 1000
"""As many as a DriftService may have."""


class Loss(NamedTuple):
    """A node that dies. None: the one with the most requests."""

    at_s: float
    node: int | None = None


def read_loss(text: str) -> Loss:
    """`T` or `T:NODE`, in seconds of the run and nodes from 0 on. Raises ValueError."""
    at, colon, node = text.partition(":")
    try:
        loss = Loss(float(at), int(node) if colon else None)
    except ValueError:
        raise ValueError(f"{text!r} is not of the form SECONDS or SECONDS:NODE") from None
    if not 0 <= loss.at_s < float("inf") or (loss.node is not None and loss.node < 0):
        raise ValueError(f"{text!r}: neither a time nor a node is below 0")
    return loss


class Account(msgspec.Struct, frozen=True):
    """What router and levers did in one run."""

    decisions: Sequence[Decision]
    moves: dict[str, int]
    """Decisions by lever."""
    counts: Sequence[tuple[float, int]]
    """(when, nodes that serve) wherever that changed."""
    routed: int
    """Routing decisions."""
    routing_cpu_s: float
    """Of this machine, for all of them."""
    index_bytes: int
    """Of the router's prefix index, at the end."""
    looks: int
    """Of the operator."""
    levers_cpu_s: float
    """Of this machine, for all of them."""
    set_points: int
    """That it sent."""


class System:
    """One service; every `attach` begins anew, and `account` is of the last one."""

    def __init__(
        self,
        *,
        slo: Slo,
        policy: Policy = Policy.CACHE_AWARE,
        rate_error: float = 0.0,
        seed: int = 0,
        mode: wire.Mode = wire.Mode.AUTO,
        moved: Levers = Levers.OFF,
        nodes: int = 1,
        max_nodes: int | None = None,
        start_up_s: float = 60.0,
        losses: Sequence[Loss] = (),
        split: Roles | None = None,
    ) -> None:
        """`nodes` at first and at least, `max_nodes` at most; `split`: by roles. Raises ValueError that names the
        option."""
        most = nodes if max_nodes is None else max_nodes
        if not nodes <= most <= MOST_NODES:
            raise ValueError(f"--max-nodes: {most} is not between {nodes} and {MOST_NODES}")
        if max_nodes is not None and moved is not Levers.ALL:
            raise ValueError("--max-nodes needs --levers all: no other moves the number of nodes")
        if not 0 <= start_up_s < float("inf"):
            raise ValueError(f"--start-up: {start_up_s:g} is no time")
        for loss in losses:
            if loss.node is not None and loss.node >= most:
                raise ValueError(f"--fail-node-at: node {loss.node} is not among {most} nodes")
        self.dispatcher = routing.making(policy, slo, rate_error, seed)
        if split is not None:
            if sum(split) != nodes:
                raise ValueError(f"--roles: {sum(split)} nodes are not the {nodes} of --nodes")
            if moved is not Levers.OFF:
                raise ValueError("--roles excludes --levers: they are of nodes that do both")
            self.dispatcher = roles.two_routers(split, policy, slo, rate_error, seed)
        self._moved = moved
        self._losses = tuple(losses)
        self._start_up_s = start_up_s
        self._service = None
        if moved is not Levers.OFF:
            self._service = steering.service(slo, moved, mode.value, nodes, most)
        self._simulation: Simulation | None = None
        self._steering: Steering | None = None

    def attach(self, simulation: Simulation) -> None:
        self._simulation, self._steering = simulation, None
        for loss in self._losses:
            simulation.at(loss.at_s, _losing(simulation, loss.node))
        if self._service is not None:
            router = simulation.dispatcher
            assert isinstance(router, SimulatedRouter), "a simulation with this system's dispatcher"
            self._steering = Steering(simulation, router, self._moved, self._service, self._start_up_s)

    @property
    def account(self) -> Account:
        simulation, steered = self._simulation, self._steering
        assert simulation is not None, "nothing ran yet"
        dispatcher = simulation.dispatcher
        routers = dispatcher.routers if isinstance(dispatcher, TwoRouters) else (dispatcher,)
        found = [router for router in routers if isinstance(router, SimulatedRouter)]
        return Account(
            decisions=steered.decisions if steered else (),
            moves=steered.moves if steered else {},
            counts=steered.counts if steered else _counts(simulation),
            routed=sum(router.cost.decisions for router in found),
            routing_cpu_s=sum(router.cost.cpu_s for router in found),
            index_bytes=sum(router.index.held_bytes for router in found),
            looks=steered.looks if steered else 0,
            levers_cpu_s=steered.cpu_s if steered else 0.0,
            set_points=steered.sent if steered else 0,
        )


def told(result: Result, moved: Levers, account: Account) -> Result:
    """With what router and levers did."""
    counts = [count for _, count in account.counts]
    return msgspec.structs.replace(
        result,
        levers=moved.value,
        lever_moves=account.moves,
        nodes_least=min(counts),
        nodes_most=max(counts),
    )


def write_decisions(path: Path, decisions: Sequence[Decision]) -> None:
    """One JSON object a line. Raises EngineError."""
    try:
        path.write_bytes(b"".join(msgspec.json.encode(decision) + b"\n" for decision in decisions))
    except OSError as error:
        raise EngineError(f"{path}: can't be written: {error.strerror}") from error


def _losing(simulation: Simulation, wanted: int | None) -> Action:
    def lose(now_s: float) -> None:
        alive = simulation.alive
        index = (
            max(alive, key=lambda one: len(alive[one].answers), default=None) if wanted is None else wanted
        )
        if index in alive:
            simulation.fail(index, now_s)

    return lose


def _counts(simulation: Simulation) -> list[tuple[float, int]]:
    """Where no lever adds any."""
    left = len(simulation.nodes)
    counts = [(0.0, left)]
    for at_s in sorted(simulation.gone_s.values()):
        left -= 1
        counts.append((at_s, left))
    return counts
