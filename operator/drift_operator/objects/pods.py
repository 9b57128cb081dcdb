"""What all pods have in common: rights that they do without, where they run, how they are told and stopped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from drift_engine.options import TOKEN_VARIABLE
from drift_operator.objects import names
from drift_operator.objects.metadata import Manifest
from drift_operator.options import OperatorOptions

USER = 65532
"""`nonroot` of distroless images, and ours."""

LEAVE_S = 5
"""Between a pod's removal from its Services and the signal to stop: proxies and routers hear of it within about a
second, a busy API server takes longer. Estimate. The action needs Kubernetes 1.30."""

STOP_MARGIN_S = 20
"""For what comes after the last request: abort, close, end of the core. Estimate."""

NAME_VARIABLE = "POD_NAME"
PROMISE_VARIABLE = "DRIFT_PROMISE"
RESERVED_VARIABLES = (NAME_VARIABLE, PROMISE_VARIABLE, TOKEN_VARIABLE)

TOKEN_ANNOTATION = "drift.ai/control-token"  # noqa: S105 - the name of an annotation

POD_SECURITY: Manifest = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY: Manifest = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}
"""With the pod's, these meet the Pod Security Standard `restricted`."""


def told(options: msgspec.Struct, defaults: msgspec.Struct, references: Mapping[str, str]) -> list[str]:
    """A process' arguments: its options as JSON, in which Kubernetes puts a variable's value for each reference.

    `references`: field -> JSON text with $(VARIABLE). Defaults are left out: a pod whose options an operator's next
    version only adds to stays as it is, and an image of another version knows the rest.
    """
    said = {
        name: value
        for name in options.__struct_fields__
        if name not in references and (value := getattr(options, name)) != getattr(defaults, name)
    }
    # Kubernetes reads $$ as $, so that nothing of the user's is taken for a variable.
    fields = [f'"{name}":{text}' for name, text in references.items()]
    fields += [
        f'"{name}":{msgspec.json.encode(value).decode()}'.replace("$", "$$") for name, value in said.items()
    ]
    return ["--options", "{" + ",".join(fields) + "}"]


def environment(service: str) -> list[Manifest]:
    """The variables that `told` may refer to, and the control token."""
    return [
        {"name": NAME_VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {
            "name": PROMISE_VARIABLE,
            "valueFrom": {"configMapKeyRef": {"name": names.promise_map(service), "key": names.PROMISE_KEY}},
        },
        {
            "name": TOKEN_VARIABLE,
            "valueFrom": {"secretKeyRef": {"name": names.control_secret(service), "key": names.TOKEN_KEY}},
        },
    ]


def grace_s(drain_s: float) -> int:
    """Until Kubernetes kills a pod that was told to stop."""
    return LEAVE_S + math.ceil(drain_s) + STOP_MARGIN_S


def leaving() -> Manifest:
    return {"preStop": {"sleep": {"seconds": LEAVE_S}}}


def spread_over_hosts(service: str, component: str) -> list[Manifest]:
    """Where there is a choice: a cluster with one host is no reason to have one pod."""
    return [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": names.selector(service, component)},
        }
    ]


def apart_by_zone(service: str, component: str) -> Manifest:
    """An affinity: rather in zones that have none of them yet.

    Not a second constraint of the spread: the scheduler spreads only over hosts that have the labels of all
    constraints, so that one over zones leaves pods unspread wherever hosts have no zone (of 12 services with two
    routers on two such hosts, six had both on one).
    """
    term = {
        "topologyKey": "topology.kubernetes.io/zone",
        "labelSelector": {"matchLabels": names.selector(service, component)},
    }
    preferred = [{"weight": 100, "podAffinityTerm": term}]
    return {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}


def tolerating_loss(seconds: int) -> list[Manifest]:
    """So long a pod stays with a host that is silent; Kubernetes itself says 300 s."""
    return [
        {
            "key": f"node.kubernetes.io/{what}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": seconds,
        }
        for what in ("unreachable", "not-ready")
    ]


def probe(path: str, port: int, *, every_s: int, failures: int, timeout_s: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": port},
        "periodSeconds": every_s,
        "failureThreshold": failures,
        "timeoutSeconds": timeout_s,
    }


def spec(
    service: str, component: str, container: Manifest, options: OperatorOptions, **fields: Any
) -> Manifest:
    """A pod's, around its one container. The ServiceAccount's token is mounted only where `fields` say so."""
    made = {
        "serviceAccountName": names.account(service, component),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": POD_SECURITY,
        "containers": [
            {
                "name": component,
                "imagePullPolicy": options.image_pull_policy,
                "securityContext": CONTAINER_SECURITY,
                # Its last words stand in its status, where the operator reads them: it may read no logs.
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "lifecycle": leaving(),
                **container,
            }
        ],
        **fields,
    }
    if options.image_pull_secrets:
        made["imagePullSecrets"] = [{"name": name} for name in options.image_pull_secrets]
    return made
