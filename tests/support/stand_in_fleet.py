"""The nodes and routers of DriftServices in the pods of a stand-in kubelet: a hundred services in one thread.

    fleet = Fleet()
    with stand_in_kubelet.running(kubeconfig, machines, fleet) as kubelet:
        fleet.service("default", "chat").demand = Demand(requests_per_s=30)

A service's load is a rate: how its nodes do under it computes `plant`, and their reports say so. Real requests over
the pods' ports are answered too. Pods that are neither node nor router are plain `PodProcess`es.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from drift_operator.objects import names
from fleet_pods import FleetNode, FleetRouter
from fleet_services import Service
from pod_processes import PodProcess, Start


class Fleet:
    """A `pod_processes.Runtime`. Its attributes may be set by any thread."""

    def __init__(
        self,
        *,
        loading_s: float = 0.0,
        drain_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.loading_s = loading_s
        """Of a node's weights: it is not ready before."""
        self.drain_s = drain_s
        """How long the requests of a node that leaves take; None: as long as its answers."""
        self.clock = clock
        self._services: dict[tuple[str, str], Service] = {}
        self._nodes: list[FleetNode] = []
        self._routers: list[FleetRouter] = []

    def __call__(self, start: Start) -> PodProcess:
        service = self.service(start.namespace, start.labels.get(names.INSTANCE, ""))
        match start.labels.get(names.COMPONENT):
            case names.NODE:
                node = FleetNode(start, self, service)
                self._nodes = [one for one in self._nodes if not one.exited.done()] + [node]
                return node
            case names.ROUTER:
                router = FleetRouter(start, self, service)
                self._routers = [one for one in self._routers if not one.exited.done()] + [router]
                return router
        return PodProcess(start)

    def service(self, namespace: str, name: str) -> Service:
        """Also before it has any pod."""
        return self._services.setdefault((namespace, name), Service(self.clock()))

    def nodes(self, namespace: str, name: str) -> list[FleetNode]:
        """Pods that run, by name."""
        service = self.service(namespace, name)
        found = [node for node in self._nodes if node.service is service and not node.exited.done()]
        return sorted(found, key=lambda node: node.start.name)

    def routers(self, namespace: str, name: str) -> list[FleetRouter]:
        service = self.service(namespace, name)
        found = [router for router in self._routers if router.service is service and not router.exited.done()]
        return sorted(found, key=lambda router: router.start.name)

    def nodes_of(self, service: Service) -> list[FleetNode]:
        """That may be sent requests."""
        return [node for node in self._nodes if node.service is service and node.state.serving()]

    def look_at_routers(self, service: Service) -> None:
        for router in self._routers:
            if router.service is service and not router.exited.done():
                router.look()
