"""A service's objects before a real API server: it takes all, leaves them be, and ends them with their service."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

import documents
from clusters import Cluster
from drift_operator import crd, manifests
from drift_operator.driftservice import DriftService
from drift_operator.objects import access, kinds, merging, names, nodes, service
from drift_operator.objects.facts import Facts
from drift_operator.objects.metadata import Manifest
from drift_operator.options import OperatorOptions
from kubectl import Kubectl, KubectlError, define, until

OPTIONS = OperatorOptions(
    engine_image="engine:1",
    router_image="router:1",
    image_pull_secrets=("registry",),
    image_pull_policy="Never",
)
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@dataclass(frozen=True)
class Team:
    """A namespace for restricted pods, as the operator sees it."""

    name: str
    kubectl: Kubectl

    def apply(self, objects: Sequence[Manifest], *, dry_run: bool = False) -> list[Manifest]:
        return self.kubectl.apply(*objects, manager=names.FIELD_MANAGER, dry_run=dry_run)

    def service(self, name: str, **spec: Any) -> tuple[DriftService, Facts]:
        """A DriftService that is really there, and what is known of it."""
        document = documents.minimal(**spec)
        document["metadata"] |= {"name": name, "namespace": self.name}
        (made,) = self.kubectl.apply(document)
        return manifests.parse(document), facts_of(made["metadata"]["uid"])

    def versions(self) -> dict[tuple[str, str], int]:
        """(kind, name) -> a number that grows when somebody writes more than the object's status."""
        listed = self.kubectl.list(",".join(kind.plural for kind in MADE), selector=names.NAME)
        return {
            (made["kind"], made["metadata"]["name"]): int(
                made["metadata"].get("generation") or made["metadata"]["resourceVersion"]
            )
            for made in listed
        }


MADE = (
    kinds.CONFIG_MAP,
    kinds.SECRET,
    kinds.SERVICE,
    kinds.SERVICE_ACCOUNT,
    kinds.DEPLOYMENT,
    kinds.ROLE,
    kinds.ROLE_BINDING,
    kinds.INGRESS,
    kinds.NETWORK_POLICY,
    kinds.DISRUPTION_BUDGET,
)


def facts_of(uid: str) -> Facts:
    return Facts(
        uid=uid,
        token_sha256="5e" * 32,
        node_replicas=1,
        router_replicas=2,
        kinds=frozenset({str(kinds.AUTOSCALER)}),
    )


def objects_of(asked: DriftService, facts: Facts) -> list[Manifest]:
    assert service.problems(asked) == []
    return [access.control_secret(asked, facts, "a-token"), *service.build(asked, OPTIONS, facts)]


@pytest.fixture(scope="module")
def kubectl(control_plane: Cluster) -> Kubectl:
    kubectl = control_plane.kubectl
    define(kubectl, crd.build())
    return kubectl


@contextlib.contextmanager
def fresh(kubectl: Kubectl) -> Iterator[Team]:
    name = f"objects-{secrets.token_hex(4)}"
    namespace = {"name": name, "labels": RESTRICTED}
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": namespace})
    try:
        yield Team(name, kubectl.within(name))
    finally:
        kubectl.delete("namespace", name, wait=False)


@pytest.fixture
def team(kubectl: Kubectl) -> Iterator[Team]:
    with fresh(kubectl) as made:
        yield made


@pytest.fixture(scope="module")
def asking(kubectl: Kubectl) -> Iterator[Team]:
    """For tests that only ask what would be."""
    with fresh(kubectl) as made:
        yield made


AUTOSCALING: dict[str, Any] = {"maxReplicas": 4, "mode": "HPA", "stabilization": {"up": "1m", "down": "1h"}}
TEMPLATE: dict[str, Any] = {
    "metadata": {"labels": {"team": "x"}, "annotations": {"a": "b"}},
    "spec": {
        "nodeSelector": {"gpu": "h100"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "priorityClassName": "high",
        "volumes": [{"name": "cache", "persistentVolumeClaim": {"claimName": "hub"}}],
        "containers": [
            {
                "name": "node",
                "env": [{"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}],
                "volumeMounts": [{"name": "cache", "mountPath": "/more", "readOnly": True}],
                "startupProbe": {"failureThreshold": 5},
            },
            {"name": "side", "image": "side:1"},
        ],
    },
}

SPECS: dict[str, dict[str, Any]] = {
    "the least": {},
    "a model of the hub on a GPU": {
        "model": {"uri": "hf://a/b", "name": "a/b", "revision": "main"},
        "engine": {"device": "cuda", "resources": {"requests": {"cpu": 8}, "limits": {"memory": "64Gi"}}},
    },
    "a model of a claim": {"model": {"uri": "pvc://models/llama"}},
    "a model of the host": {"model": {"uri": "file:///data/llama"}},
    "no way to lose a node": {"rollout": {"maxSurge": "100%", "maxUnavailable": 0, "drainTimeout": "24h"}},
    "nothing to wait for": {"rollout": {"maxSurge": 0, "maxUnavailable": "10%", "drainTimeout": "0s"}},
    "all doors": {
        "expose": {
            "service": {"type": "NodePort", "port": 8000, "annotations": {"a": "b"}},
            "ingress": {"host": "demo.example", "className": "nginx", "tlsSecretName": "tls"},
        },
        "auth": {"apiKeysSecretRef": {"name": "keys"}},
    },
    "a balancer": {"expose": {"service": {"type": "LoadBalancer"}}},
    "an HPA": {"autoscaling": AUTOSCALING},
    "an HPA that may not move": {"autoscaling": AUTOSCALING, "paused": True},
    "dashboards": {"observability": {"dashboards": True}},
    "a pod of the user's": {
        "engine": {
            "podTemplate": TEMPLATE,
            "env": [
                {"name": "T", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": True}}}
            ],
        }
    },
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("name", ["demo", "d" * 40])
def test_the_api_server_takes_every_object(asking: Team, name: str, spec: dict[str, Any]) -> None:
    asked, facts = asking.service(name, **spec)
    objects = objects_of(asked, facts)
    assert len(asking.apply(objects, dry_run=True)) == len(objects)


def pods_of(objects: Sequence[Manifest]) -> Iterator[Manifest]:
    for made in objects:
        if made["kind"] == "Deployment":
            template = made["spec"]["template"]
            metadata = template["metadata"] | {
                "name": made["metadata"]["name"],
                "namespace": made["metadata"]["namespace"],
            }
            yield {"apiVersion": "v1", "kind": "Pod", **template, "metadata": metadata}


def refusals(asking: Team, **spec: Any) -> list[str]:
    """What admission says of the pods."""
    asked, facts = asking.service("demo", **spec)
    objects = objects_of(asked, facts)
    asking.apply([made for made in objects if made["kind"] == "ServiceAccount"])
    found = []
    for pod in pods_of(objects):
        try:
            asking.kubectl("create", "--dry-run=server", "-f", "-", text=json.dumps(pod))
        except KubectlError as error:
            found.append(str(error))
    return found


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"model": {"uri": "pvc://models/llama"}, "auth": {"apiKeysSecretRef": {"name": "keys"}}},
        {"model": {"uri": "hf://a/b"}, "engine": {"device": "cuda"}},
    ],
    ids=["the least", "a claim and keys", "a GPU"],
)
def test_pods_are_let_in_where_only_restricted_ones_are(asking: Team, spec: dict[str, Any]) -> None:
    assert refusals(asking, **spec) == []


def test_a_folder_of_the_host_is_not_for_restricted_namespaces(asking: Team) -> None:
    (refusal,) = refusals(asking, model={"uri": "file:///data/llama"})
    assert "restricted volume types" in refusal


def test_objects_that_are_applied_again_stay_as_they_are(team: Team) -> None:
    spec = SPECS["all doors"] | SPECS["dashboards"] | SPECS["a pod of the user's"]
    asked, facts = team.service("demo", **spec)
    team.apply(objects_of(asked, facts))
    before = team.versions()
    assert len(before) == len(objects_of(asked, facts))
    team.apply(objects_of(asked, facts))
    assert team.versions() == before


def test_what_others_set_is_left_to_them(team: Team) -> None:
    asked, facts = team.service("demo")
    others = dataclasses.replace(facts, node_replicas=None)
    team.apply(objects_of(asked, others))
    team.kubectl("scale", "deployment/demo-node", "--replicas=3")
    team.kubectl("rollout", "restart", "deployment/demo-node")
    before = team.versions()
    team.apply(objects_of(asked, others))
    assert team.versions() == before
    assert team.kubectl("get", "deployment", "demo-node", "-o", "jsonpath={.spec.replicas}") == "3"


def test_objects_end_with_their_service_without_an_operator(team: Team) -> None:
    asked, facts = team.service("demo")
    team.apply(objects_of(asked, facts))
    assert team.versions()
    team.kubectl.delete("driftservice", "demo")
    until(lambda: not team.versions(), "the garbage collector")


def test_a_router_may_watch_nodes_and_nothing_else(team: Team) -> None:
    asked, facts = team.service("demo")
    team.apply(objects_of(asked, facts))

    def acting_as(account: str) -> Kubectl:
        return team.kubectl.acting_as(f"system:serviceaccount:{team.name}:{account}")

    router, node = acting_as("demo-router"), acting_as("demo-node")
    assert all(router.may(verb, "endpointslices") for verb in ("get", "list", "watch"))
    for verb, resource in (("list", "pods"), ("get", "secrets"), ("update", "endpointslices")):
        assert not router.may(verb, resource)
    assert not router.within("default").may("list", "endpointslices")
    assert not node.may("list", "endpointslices")


def keyed(value: Any, name: str = "") -> Any:
    """Without the order of lists that are merged by a key: the two sides put new items at different ends."""
    if isinstance(value, dict):
        return {field: keyed(item, field) for field, item in value.items()}
    if isinstance(value, list) and name in merging.KEYS:
        return sorted((keyed(item) for item in value), key=lambda item: json.dumps(item, sort_keys=True))
    return value


PATCHES: dict[str, Manifest] = {
    "the user's pod": TEMPLATE,
    "a probe of another kind": {
        "spec": {
            "containers": [
                {"name": "node", "livenessProbe": {"httpGet": None, "exec": {"command": ["true"]}}}
            ]
        }
    },
    "other ports and mounts": {
        "spec": {
            "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["hub"]}],
            "imagePullSecrets": [{"name": "mine"}],
            "containers": [
                {
                    "name": "node",
                    "ports": [{"containerPort": 9000, "protocol": "TCP"}],
                    "volumeMounts": [{"mountPath": "/tmp", "name": "shm"}],
                }
            ],
        }
    },
    "fewer rights": {"spec": {"securityContext": {"fsGroup": None, "supplementalGroups": [5]}}},
}


@pytest.mark.parametrize("over", PATCHES.values(), ids=PATCHES)
def test_a_pod_template_is_merged_as_kubernetes_itself_does(asking: Team, over: Manifest) -> None:
    asked = manifests.parse(documents.minimal())
    deployment = nodes.build(asked, OPTIONS, facts_of("0d1e8d7c-8f9a-4c5e-9a57-0f6c1f0a9a11"))
    deployment["metadata"]["namespace"] = asking.name
    # As the API server has it, so that Kubernetes' own rules find their keys.
    for port in deployment["spec"]["template"]["spec"]["containers"][0]["ports"]:
        port["protocol"] = "TCP"
    theirs = copy.deepcopy(over)
    for volume in theirs["spec"].get("volumes", ()):
        volume["$retainKeys"] = [
            *volume
        ]  # as `kubectl apply` says it of a volume: nothing of the old source stays
    patch = json.dumps({"spec": {"template": theirs}})
    text = json.dumps(deployment)
    by_kubernetes = json.loads(
        asking.kubectl(
            "patch", "--local", "--type=strategic", "-p", patch, "-f", "-", "-o", "json", text=text
        )
    )
    by_us = merging.merge(deployment, {"spec": {"template": over}})
    assert keyed(by_us["spec"]["template"]) == keyed(by_kubernetes["spec"]["template"])
