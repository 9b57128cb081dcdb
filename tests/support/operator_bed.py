"""What tests of the operator on a control plane do and see: one operator, a stand-in fleet, a namespace a test."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kube_api
from background_loop import BackgroundLoop
from drift_operator import driftservice
from drift_operator.objects import names
from fleet_pods import FleetNode, FleetRouter
from fleet_services import Service
from kube_api import KubeApi, Object
from operator_process import OperatorProcess
from stand_in_fleet import Fleet
from stand_in_kubelet import StandInKubelet

DEADLINE_S = 60.0

SPEC: Object = {
    "model": {"uri": "embedded://drift-tiny"},
    "engine": {"device": "sim"},
    "rollout": {"drainTimeout": "20s"},
    "slo": {"window": "10s"},
}
"""Of a service that a test says nothing else about: a simulated GPU, and times that fit a test."""

OWNED = (
    "api/v1/{}/services",
    "api/v1/{}/configmaps",
    "api/v1/{}/secrets",
    "api/v1/{}/serviceaccounts",
    "api/v1/{}/pods",
    "apis/apps/v1/{}/deployments",
    "apis/apps/v1/{}/replicasets",
    "apis/autoscaling/v2/{}/horizontalpodautoscalers",
    "apis/discovery.k8s.io/v1/{}/endpointslices",
    "apis/networking.k8s.io/v1/{}/ingresses",
    "apis/networking.k8s.io/v1/{}/networkpolicies",
    "apis/policy/v1/{}/poddisruptionbudgets",
    "apis/rbac.authorization.k8s.io/v1/{}/roles",
    "apis/rbac.authorization.k8s.io/v1/{}/rolebindings",
)
"""Kinds that a service's objects are of, or that Kubernetes makes of these."""


class Cluster:
    """The API of a control plane, for threads that wait."""

    def __init__(self, background: BackgroundLoop, api: KubeApi) -> None:
        self.api = api
        self.background = background

    def get(self, path: str, **query: str) -> Object:
        return self.background.run(self.api.get(path, **query))

    def find(self, path: str) -> Object | None:
        return self.background.run(self.api.find(path))

    def create(self, path: str, body: Object) -> Object:
        return self.background.run(self.api.create(path, body))

    def apply(self, path: str, body: Object, manager: str = "user") -> Object:
        return self.background.run(self.api.apply(path, body, manager))

    def merge(self, path: str, body: Object) -> Object:
        return self.background.run(self.api.merge(path, body))

    def delete(self, path: str, **options: Any) -> None:
        self.background.run(self.api.delete(path, **options))

    def until(
        self, path: str, condition: Callable[[Object], bool], deadline_s: float = DEADLINE_S, **query: str
    ) -> Object:
        """What is there once it is as awaited. Raises TimeoutError."""
        waiting = self.api.until(
            path, lambda found: found is not None and condition(found), deadline_s, **query
        )
        found = self.background.run(waiting, deadline_s + 10)
        assert found is not None
        return found

    def until_gone(self, path: str, deadline_s: float = DEADLINE_S) -> None:
        waiting = self.api.until(path, lambda found: found is None, deadline_s)
        self.background.run(waiting, deadline_s + 10)

    @contextlib.contextmanager
    def history(self, path: str, **query: str) -> Iterator[list[Object]]:
        """All states of the objects of a list from now on, as a watch tells of them."""
        seen: list[Object] = []

        async def watch() -> None:
            async for _, item in self.api.follow(path, **query):
                seen.append(item)

        watching = asyncio.run_coroutine_threadsafe(watch(), self.background.loop)
        try:
            yield seen
        finally:
            watching.cancel()


@contextlib.contextmanager
def cluster(kubeconfig: Path) -> Iterator[Cluster]:
    with BackgroundLoop("cluster") as background:
        stack = contextlib.AsyncExitStack()
        api = background.run(stack.enter_async_context(kube_api.connect(kubeconfig)))
        try:
            yield Cluster(background, api)
        finally:
            background.run(stack.aclose())


@dataclass
class Bed:
    """Of many tests."""

    cluster: Cluster
    kubelet: StandInKubelet
    fleet: Fleet
    operator: OperatorProcess


@dataclass
class Scene:
    """One test's namespace."""

    bed: Bed
    namespace: str

    def path(self, name: str = "chat") -> str:
        return f"/apis/{driftservice.API_VERSION}/namespaces/{self.namespace}/driftservices/{name}"

    def deployment(self, component: str, name: str = "chat") -> str:
        return f"/apis/apps/v1/namespaces/{self.namespace}/deployments/{names.deployment(name, component)}"

    @property
    def pods(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods"

    def apply(self, name: str = "chat", **spec: Any) -> None:
        """As a user does, with these fields of the spec over `SPEC`."""
        body = {
            "apiVersion": driftservice.API_VERSION,
            "kind": driftservice.KIND,
            "metadata": {"name": name},
            "spec": SPEC | spec,
        }
        self.bed.cluster.apply(self.path(name), body)

    def patch(self, name: str = "chat", **spec: Any) -> None:
        self.bed.cluster.merge(self.path(name), {"spec": spec})

    def scale(self, replicas: int, name: str = "chat") -> None:
        """As `kubectl scale` and autoscalers do."""
        self.bed.cluster.merge(f"{self.path(name)}/scale", {"spec": {"replicas": replicas}})

    def read(self, name: str = "chat") -> Object:
        return self.bed.cluster.get(self.path(name))

    def status(self, name: str = "chat") -> Object:
        status: Object = self.read(name).get("status", {})
        return status

    def until(
        self, awaited: Callable[[Object], bool], name: str = "chat", deadline_s: float = DEADLINE_S
    ) -> Object:
        """The status, once it is of the present spec and as awaited. Raises TimeoutError, with the log's end."""

        def there(found: Object) -> bool:
            status = found.get("status", {})
            present = status.get("observedGeneration") == found["metadata"]["generation"]
            return present and awaited(status)

        try:
            found = self.bed.cluster.until(self.path(name), there, deadline_s)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\nthe operator: {self.bed.operator.log[-4000:]}") from None
        status: Object = found["status"]
        return status

    def until_ready(
        self, name: str = "chat", nodes: int | None = None, deadline_s: float = DEADLINE_S
    ) -> Object:
        """And at rest: nothing is under way. `nodes`: so many serve."""

        def ready(status: Object) -> bool:
            return (
                condition(status, "Ready") == "True"
                and condition(status, "Progressing") == "False"
                and (nodes is None or status.get("readyReplicas") == nodes)
            )

        return self.until(ready, name, deadline_s)

    def service(self, name: str = "chat") -> Service:
        """In the fleet: its load, and what became of that."""
        return self.bed.fleet.service(self.namespace, name)

    def nodes(self, name: str = "chat") -> list[FleetNode]:
        return self.bed.fleet.nodes(self.namespace, name)

    def routers(self, name: str = "chat") -> list[FleetRouter]:
        return self.bed.fleet.routers(self.namespace, name)

    def hosts(self, component: str, name: str = "chat") -> list[str]:
        """Where its pods are, one after the other."""
        found = self.bed.cluster.get(self.pods, labelSelector=names.selector_text(name, component))
        return sorted(pod["spec"]["nodeName"] for pod in found["items"])

    def objects(self) -> dict[str, str]:
        """Everything that there is, with its version."""
        found: dict[str, str] = {}
        listed = f"apis/{driftservice.API_VERSION}/{{}}/driftservices"
        for pattern in (*OWNED, listed):
            path = "/" + pattern.format(f"namespaces/{self.namespace}")
            for item in self.bed.cluster.get(path)["items"]:
                metadata = item["metadata"]
                found[f"{path.rpartition('/')[2]}/{metadata['name']}"] = metadata["resourceVersion"]
        return found


def condition(status: Object, kind: str) -> str | None:
    """True, False, Unknown; None: it is not there."""
    return next((each["status"] for each in status.get("conditions", ()) if each["type"] == kind), None)


def reason(status: Object, kind: str) -> str | None:
    return next((each["reason"] for each in status.get("conditions", ()) if each["type"] == kind), None)


def message(status: Object, kind: str) -> str:
    return next((each["message"] for each in status.get("conditions", ()) if each["type"] == kind), "")


@contextlib.contextmanager
def scene(bed: Bed) -> Iterator[Scene]:
    """A fresh namespace, which is gone afterwards with all that is in it."""
    name = f"t-{secrets.token_hex(4)}"
    path = f"/api/v1/namespaces/{name}"
    bed.cluster.create("/api/v1/namespaces", {"metadata": {"name": name}})
    try:
        yield Scene(bed, name)
    finally:
        bed.cluster.delete(path)
        if not bed.operator.running:
            bed.operator.start()


def eventually(awaited: Callable[[], bool], deadline_s: float = DEADLINE_S, look_s: float = 0.1) -> None:
    """Of what the fleet knows. Raises TimeoutError."""
    until_s = time.monotonic() + deadline_s
    while not awaited():
        if time.monotonic() > until_s:
            raise TimeoutError(f"not within {deadline_s:g} s")
        time.sleep(look_s)
