"""A service's place on a cluster: its objects by server-side apply, marks on its pods, status and events of its own.

What is seen is what the watches last told (`caches`); nothing is asked for here but the control token.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from drift_operator.cluster import kinds
from drift_operator.cluster.api import Api, ApiError, ConflictError, InvalidError, NotFoundError
from drift_operator.cluster.applying import REPAIR_S, Applier
from drift_operator.cluster.caches import Cache
from drift_operator.cluster.presence import Presence
from drift_operator.cluster.recording import Recorder
from drift_operator.cluster.tokens import Token
from drift_operator.driftservice import DriftService
from drift_operator.objects import access, names
from drift_operator.objects import service as objects
from drift_operator.objects.facts import Facts
from drift_operator.objects.kinds import DEPLOYMENT, OPTIONAL, SECRET, Kind
from drift_operator.options import OperatorOptions
from drift_operator.places import Gone, Scene, Service
from drift_operator.reconciling import pods, workloads
from drift_operator.reconciling.conditions import EventKind
from drift_operator.reconciling.leaving import Departure
from drift_operator.reconciling.pods import Pod
from drift_operator.reconciling.workloads import Workload

Object = dict[str, Any]


@dataclass(frozen=True)
class Cluster:
    """What the places of all services share."""

    api: Api
    cache: Cache
    recorder: Recorder
    options: OperatorOptions
    optional: Callable[[], frozenset[Kind]]
    """Kinds that this cluster has beyond the usual."""
    foreign_metrics: Callable[[], str | None] = lambda: None
    """Who else provides the cluster's external metrics, so that HPAs do not get ours; in a sentence."""


class ClusterPlace:
    """Of one service. A `places.Place`."""

    def __init__(self, cluster: Cluster, key: Service) -> None:
        self.changed = False
        self._cluster = cluster
        self._key = key
        self._token = Token(cluster.api, key)
        self._applier = Applier(cluster.api, cluster.cache, key)
        self._keys = Presence(cluster.api)
        self._settled: tuple[object, int, float] | None = None

    def problems(self, service: DriftService) -> list[str]:
        return objects.problems(service)

    async def token(self, service: DriftService, now_s: float) -> str:
        facts = Facts(_uid(service), "", None, 0)
        return await self._token.read(lambda made: access.control_secret(service, facts, made), now_s)

    def scene(self) -> Scene:
        return Scene(
            nodes=self._workload(names.NODE),
            routers=self._workload(names.ROUTER),
            node_pods=self._pods(names.NODE),
            router_pods=self._pods(names.ROUTER),
        )

    async def make(
        self, service: DriftService, departure: Departure, token: str, now_s: float
    ) -> tuple[str, ...]:
        facts = Facts(
            uid=_uid(service),
            token_sha256=hashlib.sha256(token.encode()).hexdigest(),
            node_replicas=departure.replicas,
            router_replicas=service.spec.routing.replicas,
            kinds=frozenset(str(kind) for kind in self._cluster.optional()),
        )
        await self._mark(departure)
        refused = await self._apply(service, facts, now_s)
        await self._release(departure)
        return tuple(str(error) for error in refused)

    def lacking(self, service: DriftService) -> tuple[str, ...]:
        known = {str(kind) for kind in self._cluster.optional()}
        return tuple(sorted(set(map(str, objects.kinds_wanted(service))) - known))

    async def missing(self, service: DriftService, now_s: float) -> str | None:
        """The Secret of API keys, where routers wait for volumes and it is not there."""
        auth = service.spec.auth
        if auth is None or all(pod.waits_since_s is None for pod in self._pods(names.ROUTER)):
            return None
        name = auth.api_keys_secret_ref.name
        return name if await self._keys.missing(SECRET, self._key[0], name, now_s) else None

    def foreign_metrics(self) -> str | None:
        return self._cluster.foreign_metrics()

    def url(self, service: DriftService) -> str:
        """The Ingress's host, or else the inner one."""
        expose = service.spec.expose
        if expose.ingress is not None:
            scheme = "https" if expose.ingress.tls_secret_name else "http"
            return f"{scheme}://{expose.ingress.host}/v1"
        return self.inner_url(service)

    def inner_url(self, service: DriftService) -> str:
        """The Service within the cluster."""
        expose = service.spec.expose
        port = "" if expose.service.port == 80 else f":{expose.service.port}"
        host = names.client_service(service.metadata.name)
        return f"http://{host}.{service.metadata.namespace or 'default'}.svc{port}/v1"

    async def write(self, body: Object, status: Object) -> None:
        meta = body["metadata"]
        manifest = {
            "apiVersion": body["apiVersion"],
            "kind": body["kind"],
            # The uid: a service of the same name that was made since is another one.
            "metadata": {"name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]},
            "status": status,
        }
        self.changed = True
        try:
            await self._cluster.api.apply_status(kinds.DRIFT_SERVICE, manifest)
        except NotFoundError as error:
            raise Gone from error
        except ConflictError as error:
            if await self._replaced(str(meta["uid"])):
                raise Gone from error
            raise

    def record(self, body: Object, kind: EventKind, reason: str, message: str) -> None:
        self._cluster.recorder.record(body, kind, reason, message)

    def _pods(self, component: str) -> tuple[Pod, ...]:
        found = self._cluster.cache.of(kinds.POD, self._key).values()
        return tuple(
            pods.read(item) for item in found if item["metadata"]["labels"].get(names.COMPONENT) == component
        )

    def _workload(self, component: str) -> Workload | None:
        own = self._cluster.cache.of(DEPLOYMENT, self._key)
        return workloads.read(own.get(names.deployment(self._key[1], component)))

    async def _apply(self, service: DriftService, facts: Facts, now_s: float) -> list[ApiError]:
        """Nothing is looked through while neither what is wanted nor what is there has changed."""
        cluster, cache = self._cluster, self._cluster.cache
        wish = (service.metadata.generation, facts)
        if self._settled is not None:
            settled_wish, version, at_s = self._settled
            if settled_wish == wish and version == cache.version(self._key) and now_s - at_s < REPAIR_S:
                return []
        made = objects.build(service, cluster.options, facts)
        errors = await self._applier.apply(made, now_s)
        self.changed = self.changed or self._applier.wrote
        absent = set(OPTIONAL) - cluster.optional()
        prunable = [kind for kind in objects.prunable() if kind not in absent]
        errors += await self._applier.prune(made, prunable)
        self._settled = None if errors else (wish, cache.version(self._key), now_s)
        if any(not isinstance(error, InvalidError) and error.status != 403 for error in errors):
            raise errors[0]  # it may be gone the next time: nothing to tell people yet
        return errors

    async def _mark(self, departure: Departure) -> None:
        """Before the Deployment shrinks: it goes by the costs."""
        marks = {
            name: {names.DRAINING: drain.text, names.DELETION_COST: str(names.LEAVES_FIRST)}
            for name, drain in departure.mark.items()
        }
        marks |= {name: {names.DELETION_COST: str(names.LEAVES_NOW)} for name in departure.release}
        for name, mark in marks.items():
            patch = {"metadata": {"annotations": mark}}
            try:
                item = await self._cluster.api.merge(kinds.POD, self._key[0], name, patch)
            except NotFoundError:
                continue
            self._cluster.cache.put(kinds.POD, item)

    async def _release(self, departure: Departure) -> None:
        """After it: nobody makes another pod for one that is deleted."""
        for name in departure.release:
            pod = self._cluster.cache.of(kinds.POD, self._key).get(name)
            if pod is not None:
                await self._cluster.api.delete(kinds.POD, self._key[0], name, str(pod["metadata"]["uid"]))

    async def _replaced(self, uid: str) -> bool:
        """Whether there is another service of the name, or none: a conflict can also be a mere moment's."""
        try:
            found = await self._cluster.api.get(kinds.DRIFT_SERVICE, *self._key)
        except NotFoundError:
            return True
        return bool(found["metadata"]["uid"] != uid)


def _uid(service: DriftService) -> str:
    assert service.metadata.uid is not None, "the API server gives every object one"
    return service.metadata.uid
