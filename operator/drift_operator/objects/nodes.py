"""The Deployment of a service's nodes: the pod that Drift means, and over it what the user says of pods."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from drift_engine.options import NodeOptions
from drift_operator import arguments, problems, processes
from drift_operator.containers import GPU, Engine
from drift_operator.driftservice import DriftService
from drift_operator.fields import seconds
from drift_operator.objects import kinds, merging, metadata, names, pods, weights
from drift_operator.objects.facts import Facts
from drift_operator.objects.merging import MergeError
from drift_operator.objects.metadata import Manifest
from drift_operator.objects.weights import Weights
from drift_operator.options import OperatorOptions

STARTUP_S = 2 * 3600
"""For weights to be fetched and read: 140 GB (70 billion parameters in bfloat16) at 20 MB/s. Estimate."""

PROGRESS_S = STARTUP_S + 600
"""Before a rollout counts as stuck: a slow start, and pulling an engine's image of 5 GB before it."""

SETTLE_S = 5
"""A new node stands this long before an old one goes: until the routers have seen it and asked for its report, both
of which they do about every second."""

OLD_REPLICA_SETS = 3
"""Kept for `kubectl rollout undo`."""

CACHE, TEMPORARY = "/cache", "/tmp"  # noqa: S108 - a volume of the pod's own

LATENCY_FILE = f"{CACHE}/latency.json"

TEMPLATE = ("spec", "engine", "podTemplate")

NEEDED = (("metadata",), ("metadata", "labels"), ("spec",), ("spec", "containers"))
"""Of a pod's template: null may not take these away."""

STAND_IN = OperatorOptions(engine_image="-", router_image="-")
"""Where only the template's form matters."""


def build(service: DriftService, options: OperatorOptions, facts: Facts) -> Manifest:
    """Of a service that has no `faults`."""
    spec, name = service.spec, service.metadata.name
    made = metadata.begun(kinds.DEPLOYMENT, names.deployment(name, names.NODE), service, facts, names.NODE)
    made["spec"] = {
        "selector": {"matchLabels": names.selector(name, names.NODE)},
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {
                "maxSurge": spec.rollout.max_surge,
                "maxUnavailable": spec.rollout.max_unavailable,
            },
        },
        "minReadySeconds": SETTLE_S,
        "progressDeadlineSeconds": PROGRESS_S,
        "revisionHistoryLimit": OLD_REPLICA_SETS,
        "template": _template(service, options, facts),
    }
    if facts.node_replicas is not None:
        made["spec"]["replicas"] = facts.node_replicas
    return made


def faults(service: DriftService) -> Iterator[str]:
    """What the user says of node pods and what would break them, one line each with its path."""
    engine = service.spec.engine
    yield from arguments.settings(engine)[1]
    for index, env in enumerate(engine.env or ()):
        if env.name in pods.RESERVED_VARIABLES:
            yield f"spec.engine.env[{index}].name: {env.name} is set by Drift itself"
    over = engine.pod_template or {}
    try:
        merging.merge(_pod(service, STAND_IN, [], Weights(service.spec.model.uri)), over, TEMPLATE)
    except MergeError as error:
        yield str(error)
        return
    yield from _broken_by(over)


def _broken_by(over: Manifest) -> Iterator[str]:
    """Of a template that can be merged."""

    def said(phrase: str, *location: str | int) -> str:
        return f"{problems.path((*TEMPLATE, *location))}: {phrase}"

    for location in NEEDED:
        *way, last = location
        if _at(over, way).get(last, ...) is None:
            yield said("can't be taken away", *location)
    for label in _at(over, ["metadata", "labels"]):
        if label in names.labels("", names.NODE):
            yield said(f"{label} is what Drift finds its pods by", "metadata", "labels")
    spec = _at(over, ["spec"])
    if "terminationGracePeriodSeconds" in spec:
        yield said("is what spec.rollout.drainTimeout says", "spec", "terminationGracePeriodSeconds")
    first = spec.get("initContainers")
    for place, container in enumerate(first if isinstance(first, list) else ()):
        if container["name"] == names.NODE:
            yield said(f"{names.NODE} is the name of Drift's own", "spec", "initContainers", place, "name")
    for place, container in enumerate(spec.get("containers") or ()):
        if container["name"] != names.NODE:
            continue
        here = ("spec", "containers", place)
        for field in ("image", "args"):
            if field in container:
                yield said(f"is what spec.engine.{field} says", *here, field)
        if container.get("env", ...) is None:
            yield said("can't be taken away", *here, "env")
        for index, env in enumerate(container.get("env") or ()):
            if env["name"] in pods.RESERVED_VARIABLES:
                yield said(f"{env['name']} is set by Drift itself", *here, "env", index, "name")


def _at(value: Any, way: Sequence[str]) -> dict[str, Any]:
    """The object at the end of the way; an empty one where there is none."""
    for part in way:
        value = value.get(part) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _template(service: DriftService, options: OperatorOptions, facts: Facts) -> Manifest:
    engine = service.spec.engine
    asked = processes.node(service, arguments.settings(engine)[0])
    model = weights.found(service.spec.model, options)
    asked = msgspec.structs.replace(
        asked,
        model=model.uri,
        host="0.0.0.0",  # noqa: S104 - a pod's own address is all there is
        port=names.API_PORT,
        control_host="0.0.0.0",  # noqa: S104
        control_port=names.CONTROL_PORT,
        # Clients' keys are the router's affair: a node takes nobody but who has the control token.
        api_key_sha256=(facts.token_sha256,),
        latency_file=asked.latency_file or LATENCY_FILE,
    )
    references = {"node": f'"$({pods.NAME_VARIABLE})"', "slo": f"$({pods.PROMISE_VARIABLE})"}
    made = _pod(service, options, pods.told(asked, NodeOptions(model=""), references), model)
    return merging.merge(made, engine.pod_template or {}, TEMPLATE)


def _pod(service: DriftService, options: OperatorOptions, args: list[str], model: Weights) -> Manifest:
    """As Drift means it."""
    name, engine = service.metadata.name, service.spec.engine
    container: Manifest = {
        "image": engine.image or options.engine_image,
        "args": args,
        "env": _environment(name, engine),
        "ports": [
            {"name": "api", "containerPort": names.API_PORT},
            {"name": "control", "containerPort": names.CONTROL_PORT},
        ],
        "startupProbe": pods.probe(
            "/readyz", names.API_PORT, every_s=5, failures=STARTUP_S // 5, timeout_s=5
        ),
        "readinessProbe": pods.probe("/readyz", names.API_PORT, every_s=2, failures=3, timeout_s=2),
        # A node whose core hangs ends itself; this is for one that does not even notice.
        "livenessProbe": pods.probe("/healthz", names.API_PORT, every_s=10, failures=6, timeout_s=5),
        "volumeMounts": [
            {"name": "cache", "mountPath": CACHE},
            {"name": "tmp", "mountPath": TEMPORARY},
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
        ],
    }
    volumes: list[Manifest] = [
        {"name": "cache", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory"}},
    ]
    if model.volume is not None:
        container["volumeMounts"].append(
            {"name": weights.VOLUME, "mountPath": weights.FOLDER, "readOnly": True}
        )
        volumes.append({"name": weights.VOLUME, **model.volume})
    if resources := _resources(engine):
        container["resources"] = resources
    return {
        "metadata": {
            "labels": names.labels(name, names.NODE),
            "annotations": {"kubectl.kubernetes.io/default-container": names.NODE},
        },
        "spec": pods.spec(
            name,
            names.NODE,
            container,
            options,
            terminationGracePeriodSeconds=pods.grace_s(seconds(service.spec.rollout.drain_timeout)),
            topologySpreadConstraints=pods.spread_over_hosts(name, names.NODE),
            volumes=volumes,
        ),
    }


def _environment(service: str, engine: Engine) -> list[Manifest]:
    ours = [
        *pods.environment(service),
        {"name": "HOME", "value": CACHE},
        {"name": "HF_HOME", "value": f"{CACHE}/huggingface"},
        # Compilers' caches are named after the user, and an image has no name for this one.
        {"name": "USER", "value": "drift"},
    ]
    users = [env.model_dump(by_alias=True, exclude_none=True) for env in engine.env or ()]
    return list({env["name"]: env for env in [*ours, *users]}.values())


def _resources(engine: Engine) -> dict[str, Any]:
    given = engine.resources.model_dump(by_alias=True, exclude_none=True) if engine.resources else {}
    limits = given.get("limits", {})
    # A part of a GPU (nvidia.com/mig-...) is one too.
    if engine.device == "cuda" and not any(name.startswith("nvidia.com/") for name in limits):
        given["limits"] = {**limits, GPU: engine.tensor_parallel}
    return given
