"""Where the pods of a service live: the seam between a pass (`keeping`) and a cluster, or the processes of a machine.

A pass decides; a place shows what there is, makes what was decided, and takes what is told. `cluster.place` does so
by Kubernetes' API, `place` with processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from drift_operator.driftservice import DriftService
from drift_operator.reconciling.conditions import EventKind
from drift_operator.reconciling.leaving import Departure
from drift_operator.reconciling.pods import Pod
from drift_operator.reconciling.workloads import Workload

Object = dict[str, Any]

Service = tuple[str, str]
"""Namespace and name of a DriftService."""


class Gone(Exception):  # noqa: N818 - an outcome
    """The DriftService is no more: its objects are the garbage collector's affair."""


@dataclass(frozen=True, slots=True)
class Scene:
    """The pods of a service and what makes them, as far as the place knows now."""

    nodes: Workload | None
    """None: there is nothing yet that makes nodes."""
    routers: Workload | None
    node_pods: tuple[Pod, ...]
    router_pods: tuple[Pod, ...]
    routed: bool = True
    """False: clients ask the only node itself, and no router is missing."""


class Place(Protocol):
    """Of one service. Whatever waits raises PlaceError where it may go well later."""

    changed: bool
    """Something was written since this was last set to False."""

    def problems(self, service: DriftService) -> list[str]:
        """What this place can't serve, one line each."""

    async def token(self, service: DriftService, now_s: float) -> str:
        """The control token of its nodes and routers."""

    def scene(self) -> Scene: ...

    async def make(
        self, service: DriftService, departure: Departure, token: str, now_s: float
    ) -> tuple[str, ...]:
        """As many nodes as are to be there, and those marked and released that are to leave. Returns what was refused
        for good, in words."""

    def lacking(self, service: DriftService) -> tuple[str, ...]:
        """What the service asks for and the place does not know."""

    async def missing(self, service: DriftService, now_s: float) -> str | None:
        """The name of the Secret that the user has still to make and pods wait for."""

    def foreign_metrics(self) -> str | None:
        """Who else provides external metrics, so that an HPA does not get ours; in a sentence."""

    def url(self, service: DriftService) -> str:
        """Where clients ask, up to and with /v1."""

    def inner_url(self, service: DriftService) -> str:
        """Where this process asks."""

    async def write(self, body: Object, status: Object) -> None:
        """`body`: the DriftService as it was last seen. Raises Gone where it is no more, too."""

    def record(self, body: Object, kind: EventKind, reason: str, message: str) -> None:
        """An event, for people. Never waits."""
