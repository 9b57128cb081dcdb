"""What a cluster does with the objects of an API server in memory: Deployments become pods, pods start, serve, finish
their requests and go, and what nobody owns any more is collected. The rules are those of Kubernetes' controllers, as
far as an operator can tell the difference.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lever_scenes
import node_reports
from drift_engine import wire
from drift_operator.cluster import kinds
from drift_operator.levers.setpoints import SetPoint
from drift_operator.nodes.channel import Refused, Unreachable
from drift_operator.objects import names
from drift_operator.objects.kinds import DEPLOYMENT
from drift_router import promises
from drift_router.options import Promise
from drift_router.pictures import RouterReport
from drift_router.promises import Promised
from model_api import BEGUN, ModelApi, Object, Place

START_S = 4.0
"""From a pod's making until it serves."""

HASH = "pod-template-hash"


FIRST = promises.at_first(Promise(400, 0, 80))


@dataclass
class Process:
    """In one pod: a node or a router."""

    address: str
    made_s: float
    work_s: float
    """What its requests take when it is told to drain."""
    broken_until_s: float = 0.0
    draining_since_s: float | None = None
    point: SetPoint | None = None
    targets: wire.Targets = node_reports.IDLE.slo
    promised: Promised = FIRST


class Machines:
    """`step` does what is due. What the operator must never do is written down in `faults`."""

    def __init__(self, api: ModelApi, now_s: Callable[[], float]) -> None:
        self.busy = True
        """Nodes have requests all the time, until they are told to drain."""
        self.work_s: tuple[float, ...] = (2.0,)
        """What a node's requests take after that, by turns."""
        self.fewest = 0
        """Nodes that users ever asked for: the operator must not have fewer."""
        self.faults: list[str] = []
        self.processes: dict[str, Process] = {}
        """By the pod's uid."""
        self._api = api
        self._now_s = now_s
        self._numbers = itertools.count(1)
        api.deleting = lambda pod: self.taken(pod, "the operator deleted it")

    def step(self) -> None:
        self._api.collect()
        for place, deployment in self._api.all(DEPLOYMENT):
            self._roll(place, deployment)
        for place, pod in self._api.all(kinds.POD):
            self._live(place, pod)
        for place, deployment in self._api.all(DEPLOYMENT):
            self._count(place, deployment)

    def pods(self, namespace: str, deployment: Object) -> list[Object]:
        uid = deployment["metadata"]["uid"]
        return [
            pod
            for (_, where, _), pod in self._api.all(kinds.POD)
            if where == namespace and pod["metadata"]["ownerReferences"][0]["uid"] == uid
        ]

    def in_flight(self, pod: Object) -> int:
        process = self.processes[pod["metadata"]["uid"]]
        if not self.busy or (not _ready(pod) and process.draining_since_s is None):
            return 0
        since_s = process.draining_since_s
        return 1 if since_s is None or self._now_s() < since_s + process.work_s else 0

    # Deployments

    def _roll(self, place: Place, deployment: Object) -> None:
        """A step of a rollout: more pods of the present template, fewer of others, as the strategy allows."""
        spec, namespace = deployment["spec"], place[1]
        wanted, template = int(spec.get("replicas", 1)), _hash(spec["template"])
        strategy = spec["strategy"]["rollingUpdate"]
        surge = _amount(strategy["maxSurge"], wanted, up=True)
        missing = _amount(strategy["maxUnavailable"], wanted, up=False)
        active = [
            pod for pod in self.pods(namespace, deployment) if "deletionTimestamp" not in pod["metadata"]
        ]
        new = [pod for pod in active if pod["metadata"]["labels"][HASH] == template]
        old = [pod for pod in active if pod["metadata"]["labels"][HASH] != template]
        room = wanted + (surge if old else 0) - len(active)
        for _ in range(min(wanted - len(new), room)):
            self._make(namespace, deployment, template)
        spare = sum(map(_ready, active)) - (wanted - missing)
        for pod in sorted(old, key=self._leaves_first):
            if _ready(pod) and spare <= 0:
                break
            spare -= _ready(pod)
            self._delete(pod)
        ours = self._api.owns(place, names.FIELD_MANAGER, ("spec", "replicas"))
        for pod in sorted(new, key=self._leaves_first)[: max(0, len(new) - wanted)]:
            if ours:
                self.taken(pod, "its Deployment shrank")
            self._delete(pod)
        marked = sum(names.DRAINING in (pod["metadata"].get("annotations") or {}) for pod in active)
        staying = wanted - max(0, marked - max(0, len(active) - wanted))
        if ours and deployment["metadata"]["labels"][names.COMPONENT] == names.NODE and staying < self.fewest:
            self.faults.append(
                f"{staying} nodes were to stay of at least {self.fewest}, at {self._now_s():.0f}"
            )

    def taken(self, pod: Object, why: str) -> None:
        """A pod goes that nobody replaces: by an operator's word, so it must have nothing left to do."""
        if pod["metadata"]["labels"][names.COMPONENT] != names.NODE:
            return
        drain = (pod["metadata"].get("annotations") or {}).get(names.DRAINING)
        unix_s = self._now_s() + BEGUN.timestamp()
        over = drain is not None and unix_s >= float(drain.partition("/")[2])
        if self.in_flight(pod) and not over:
            self.faults.append(
                f"{pod['metadata']['name']} was taken with work, at {self._now_s():.0f}: {why}"
            )

    def _leaves_first(self, pod: Object) -> tuple[bool, int, float]:
        """The order of a ReplicaSet that shrinks."""
        cost = int((pod["metadata"].get("annotations") or {}).get(names.DELETION_COST, 0))
        return _ready(pod), cost, -self.processes[pod["metadata"]["uid"]].made_s

    def _make(self, namespace: str, deployment: Object, template: str) -> None:
        number = next(self._numbers)
        meta = deployment["spec"]["template"]["metadata"]
        owner = {"apiVersion": "apps/v1", "kind": "Deployment", "controller": True}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{deployment['metadata']['name']}-{template}-{number}",
                "namespace": namespace,
                "labels": {**meta["labels"], HASH: template},
                "annotations": dict(meta.get("annotations") or {}),
                "ownerReferences": [
                    owner | {"uid": deployment["metadata"]["uid"], "name": deployment["metadata"]["name"]}
                ],
            },
            "spec": deployment["spec"]["template"]["spec"],
        }
        made = self._api.create(kinds.POD, pod, "replicaset-controller")
        address = f"10.0.{number // 256}.{number % 256}"
        self.processes[made["metadata"]["uid"]] = Process(
            address, self._now_s(), self.work_s[number % len(self.work_s)]
        )

    def _delete(self, pod: Object) -> None:
        meta = pod["metadata"]
        self._api.delete(kinds.POD, meta["namespace"], meta["name"])

    def _count(self, place: Place, deployment: Object) -> None:
        pods = [pod for pod in self.pods(place[1], deployment) if "deletionTimestamp" not in pod["metadata"]]
        template = _hash(deployment["spec"]["template"])
        ready = sum(map(_ready, pods))
        status = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": len(pods),
            "updatedReplicas": sum(pod["metadata"]["labels"][HASH] == template for pod in pods),
            "readyReplicas": ready,
            "availableReplicas": ready,
        }
        self._say(place, deployment, status)

    # pods

    def _live(self, place: Place, pod: Object) -> None:
        process, now_s = self.processes[pod["metadata"]["uid"]], self._now_s()
        if "deletionTimestamp" in pod["metadata"]:
            self.drain(process)
            if not self.in_flight(pod):
                self._api.remove(place)
            return
        up = now_s >= process.made_s + START_S
        ready = up and now_s >= process.broken_until_s and process.draining_since_s is None
        status = {
            "phase": "Running" if up else "Pending",
            "podIP": process.address,
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [{"name": "main", "started": up, "restartCount": 0}] if up else [],
        }
        self._say(place, pod, status)

    def _say(self, place: Place, item: Object, status: Object) -> None:
        if item.get("status") != status:
            self._api.merge(*place, {"status": status}, "kubelet")

    def drain(self, process: Process) -> None:
        if process.draining_since_s is None:
            process.draining_since_s = self._now_s()


class ModelChannel:
    """Stands where `drift_operator.nodes.channel.Channel` does: what pods answer an operator."""

    def __init__(self, api: ModelApi, machines: Machines, trouble: Callable[[], bool]) -> None:
        """`trouble` says of each call whether it fails."""
        self._api = api
        self._machines = machines
        self._trouble = trouble

    async def node_report(self, url: str, token: str) -> wire.Report:
        pod, process = self._asked(url)
        point = process.point
        draining = process.draining_since_s is not None
        return lever_scenes.gpu_report(
            pod["metadata"]["name"],
            ready=not draining,
            draining=draining,
            in_flight=self._machines.in_flight(pod),
            slo=process.targets,
            epoch=point.epoch if point else 0,
            generation=point.generation if point else 0,
            applied=point is not None,
            bounds=point.bounds if point else None,
            weight=point.weight if point else 1.0,
        )

    async def router_report(self, url: str, token: str) -> RouterReport:
        _, process = self._asked(url)
        eligible = sum(_ready(pod) for pod in self._nodes())
        return RouterReport(
            workers=1,
            worker_restarts=0,
            draining=False,
            nodes=eligible,
            eligible_nodes=eligible,
            nodes_problem="",
            in_flight=0,
            queue_depth=0,
            window_s=60.0,
            requests_per_s=0.0,
            rejected_per_s=0.0,
            prompt_tokens_per_s=0.0,
            predicted_hit_ratio=None,
            confirmed_hit_ratio=None,
            ttft_p50_s=None,
            ttft_p99_s=None,
            tbt_p50_s=None,
            tbt_p99_s=None,
            attainment={},
            promise=process.promised,
            totals=lever_scenes.totals(),
        )

    async def put_split(self, url: str, token: str, asked: SetPoint) -> None:
        pod, process = self._asked(url)
        if process.point is not None and asked.epoch < process.point.epoch:
            self._machines.faults.append(
                f"{pod['metadata']['name']} was told epoch {asked.epoch} after {process.point.epoch}"
            )
            raise Refused(409, "an older epoch")
        process.point = asked

    async def put_targets(self, url: str, token: str, targets: wire.Targets) -> None:
        self._asked(url)[1].targets = targets

    async def put_promise(self, url: str, token: str, targets: wire.Targets, epoch: int) -> None:
        process = self._asked(url)[1]
        if epoch < process.promised.epoch:
            raise Refused(409, "an older epoch")
        process.promised = Promised(epoch, targets.ttft_ms, targets.tbt_ms, targets.ttft_per_token_ms)

    async def drain(self, url: str, token: str) -> None:
        self._machines.drain(self._asked(url)[1])

    def forget(self, url: str) -> None:
        pass

    def _asked(self, url: str) -> tuple[Object, Process]:
        address = url.removeprefix("http://").partition(":")[0]
        for _, pod in self._api.all(kinds.POD):
            process = self._machines.processes[pod["metadata"]["uid"]]
            if process.address == address and not self._trouble():
                return pod, process
        raise Unreachable("no answer within 1 s")

    def _nodes(self) -> list[Object]:
        return [
            pod
            for _, pod in self._api.all(kinds.POD)
            if pod["metadata"]["labels"][names.COMPONENT] == names.NODE
        ]


def _ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _hash(template: Any) -> str:
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:8]


def _amount(value: int | str, of: int, *, up: bool) -> int:
    if isinstance(value, int):
        return value
    share = of * int(value.removesuffix("%")) / 100
    return math.ceil(share) if up else math.floor(share)
