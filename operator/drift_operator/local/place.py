"""A service's place on this machine: node processes are its pods.

A node that is to come is started in the lowest free share of the machine, and the router hears of it when it serves.
One that leaves is told to the router as draining at once, and its process is asked to end when its time has come.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from drift_operator.driftservice import DriftService
from drift_operator.errors import LocalError
from drift_operator.local import ports
from drift_operator.local.children import Launch
from drift_operator.local.planning import HOME, LocalNode, Mould
from drift_operator.nodes.channel import Unreachable
from drift_operator.places import Scene
from drift_operator.reconciling.conditions import EventKind
from drift_operator.reconciling.leaving import Departure
from drift_operator.reconciling.pods import Drain, Pod, Stuck
from drift_operator.reconciling.workloads import Workload
from drift_router.discovery.pushed import Update
from drift_router.nodes.addresses import Address

log = logging.getLogger(__name__)

Object = dict[str, Any]

ROUTER = "router"

LOG = "the terminal of drift up"
"""Where processes' lines are."""

USUAL = frozenset({"Serving", "Reporting", "WithinBounds"})
"""Good news of every start, where the welcome is enough; a process that serves again says so itself."""


class Process(Protocol):
    """A place in the fleet, as `members.Member` is one."""

    @property
    def created_s(self) -> float:
        """Unix time."""

    @property
    def serving(self) -> bool: ...

    @property
    def served(self) -> bool:
        """Once, at least."""

    @property
    def leaving(self) -> bool:
        """It was asked to stop."""

    @property
    def deaths(self) -> int: ...

    @property
    def trouble(self) -> str | None:
        """How its last process ended, until there is another."""


class Processes(Protocol):
    """Those of a run, as `fleet.Fleet` has them."""

    @property
    def nodes(self) -> Mapping[str, Process]:
        """By name; those that were asked to stop, too, until they are gone."""

    @property
    def router(self) -> Process | None: ...

    @property
    def stopping(self) -> bool:
        """All of them end."""

    def start(self, name: str, launch: Launch) -> None: ...

    def stop(self, name: str) -> None: ...


class RouterChannel(Protocol):
    """The part of `nodes.channel.Channel` that is needed here."""

    async def put_nodes(self, url: str, token: str, update: Update) -> None:
        """Raises Unreachable."""


class LocalPlace:
    """Of the one service of a run. A `places.Place`."""

    def __init__(
        self,
        processes: Processes,
        channel: RouterChannel,
        mould: Mould,
        nodes: Sequence[LocalNode],
        *,
        launch: Callable[[LocalNode], Launch],
        url: str,
        admin_url: str,
        token: str,
        tell: Callable[[str], None],
        free_ports: Callable[[str, int], list[int]] = ports.free,
    ) -> None:
        """`nodes`: the first ones, which run. `url`: where clients ask. `tell`: a line for who is at the terminal."""
        self.changed = False
        self._processes = processes
        self._channel = channel
        self._mould = mould
        self._nodes = {node.options.node: node for node in nodes}
        self._launch = launch
        self._url = url
        self._admin_url = admin_url
        self._token = token
        self._tell = tell
        self._free_ports = free_ports
        self._drains: dict[str, Drain] = {}
        self._epoch = 0
        self._known: tuple[int, tuple[Address, ...]] | None = None
        """What the router was told last, and how often it had died by then: a new one begins with the first nodes."""

    def problems(self, service: DriftService) -> list[str]:
        """None: `planning.plan` refused all before anything was started."""
        return []

    async def token(self, service: DriftService, now_s: float) -> str:
        return self._token

    def scene(self) -> Scene:
        self._forget()
        pods = tuple(self._pod(name, each) for name, each in self._processes.nodes.items())
        router = self._processes.router
        routers = () if router is None else (_pod(ROUTER, self._admin_url, router, None),)
        return Scene(_workload(pods), _workload(routers), pods, routers, routed=router is not None)

    async def make(
        self, service: DriftService, departure: Departure, token: str, now_s: float
    ) -> tuple[str, ...]:
        if self._processes.stopping:
            return ()
        self._drains.update(departure.mark)
        for name in departure.release:
            self._processes.stop(name)
        refused = self._start(departure.replicas)
        await self._tell_router()
        return refused

    def lacking(self, service: DriftService) -> tuple[str, ...]:
        return ()

    async def missing(self, service: DriftService, now_s: float) -> str | None:
        return None

    def foreign_metrics(self) -> str | None:
        return None

    def url(self, service: DriftService) -> str:
        return self._url

    def inner_url(self, service: DriftService) -> str:
        return self._url

    async def write(self, body: Object, status: Object) -> None:
        """The door tells it."""
        self.changed = True

    def record(self, body: Object, kind: EventKind, reason: str, message: str) -> None:
        if reason not in USUAL and not self._processes.stopping:  # who ends it knows that no node is ready
            self._tell(f"{reason}: {message}")

    def _start(self, replicas: int) -> tuple[str, ...]:
        """So that as many nodes are there, without those that end. A share that still ends is free a pass later."""
        present = sum(not each.leaving for each in self._processes.nodes.values())
        try:
            for place in range(self._mould.most):
                name = self._mould.name(place)
                if present >= replicas:
                    break
                if name not in self._processes.nodes:
                    node = self._mould.node(place, HOME, *self._free_ports(HOME, 2))
                    self._nodes[name] = node
                    self._drains.pop(name, None)  # of the one before, which may have ended just now
                    self._processes.start(name, self._launch(node))
                    present += 1
                    self.changed = True
        except LocalError as error:
            return (str(error),)
        return ()

    async def _tell_router(self) -> None:
        """Which nodes there are, where it does not know. What does not reach it is told by the next pass."""
        router = self._processes.router
        if router is None or not router.serving:
            return
        word = router.deaths, tuple(self._addresses())
        if word == self._known:
            return
        self._epoch += 1
        try:
            await self._channel.put_nodes(self._admin_url, self._token, Update(self._epoch, word[1]))
        except Unreachable as error:
            log.info("the router was not told of its nodes", extra={"reason": str(error)})
        else:
            self._known = word

    def _addresses(self) -> list[Address]:
        """A node that died stays: it is started again."""
        return [
            Address(
                name,
                self._nodes[name].url,
                self._nodes[name].control_url,
                draining=each.leaving or name in self._drains,
            )
            for name, each in self._processes.nodes.items()
            if each.served
        ]

    def _pod(self, name: str, process: Process) -> Pod:
        return _pod(name, self._nodes[name].control_url, process, self._drains.get(name))

    def _forget(self) -> None:
        for known in (self._drains, self._nodes):
            for name in known.keys() - self._processes.nodes.keys():
                del known[name]


def _pod(name: str, url: str, process: Process, drain: Drain | None) -> Pod:
    return Pod(
        name=name,
        uid=f"{name}@{process.created_s}",
        url=url,
        created_s=process.created_s,
        ready=process.serving,
        terminating=process.leaving,
        drain=drain,
        unschedulable=None,
        stuck=None if process.trouble is None else Stuck("setup", process.trouble),
        started=process.serving,
        restarts=process.deaths,
        log=LOG,
    )


def _workload(pods: Sequence[Pod]) -> Workload:
    """What a Deployment would say that has what it wants."""
    staying = [pod for pod in pods if not pod.terminating]
    ready = sum(pod.ready for pod in staying)
    return Workload(
        wanted=len(staying),
        seen=True,
        present=len(staying),
        updated=len(staying),
        ready=ready,
        available=ready,
        failure=None,
    )
