"""The Deployment of a service's routers."""

from __future__ import annotations

import msgspec

from drift_operator import processes
from drift_operator.driftservice import DriftService
from drift_operator.objects import kinds, metadata, names, pods
from drift_operator.objects.facts import Facts
from drift_operator.objects.metadata import Manifest
from drift_operator.options import OperatorOptions
from drift_router.options import RouterOptions

KEYS = "/keys"

RESOURCES: Manifest = {
    "requests": {"cpu": "100m", "memory": "256Mi"},
    "limits": {"memory": "2Gi"},
}
"""A router takes 60 MB idle. Its bounds are 512 MiB of prefix index and 256 MiB of requests' bodies
(`RouterOptions`), and what clients do not read of their answers; the limit leaves room for that twice."""

UNREADY_S = 30
"""With no node to send requests to, a router leaves its Service after this long: a moment's lack of nodes is better
answered by a 503 that says when to ask again than by a refused connection. Estimate."""

LOST_HOST_S = 30
"""A router holds nothing that another one lacks and starts in two seconds, so it does not wait the five minutes that
Kubernetes gives a silent host to come back."""


def build(service: DriftService, options: OperatorOptions, facts: Facts) -> Manifest:
    name = service.metadata.name
    made = metadata.begun(
        kinds.DEPLOYMENT, names.deployment(name, names.ROUTER), service, facts, names.ROUTER
    )
    made["spec"] = {
        "replicas": facts.router_replicas,
        "selector": {"matchLabels": names.selector(name, names.ROUTER)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "revisionHistoryLimit": 3,
        "template": _template(service, options, facts),
    }
    return made


def _template(service: DriftService, options: OperatorOptions, facts: Facts) -> Manifest:
    name, auth = service.metadata.name, service.spec.auth
    asked = msgspec.structs.replace(
        processes.router(service),
        host="0.0.0.0",  # noqa: S104 - a pod's own address is all there is
        port=names.CLIENT_PORT,
        admin_host="0.0.0.0",  # noqa: S104
        admin_port=names.ADMIN_PORT,
        nodes_service=f"{metadata.namespace(service)}/{names.nodes_service(name)}",
        keys_dir=KEYS if auth is not None else None,
        log_level=options.log_level,
    )
    mounts: list[Manifest] = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108 - a volume of the pod's own
    volumes: list[Manifest] = [{"name": "tmp", "emptyDir": {}}]
    if auth is not None:
        mounts.append({"name": "keys", "mountPath": KEYS, "readOnly": True})
        # Not optional: without its keys a router would have to let everybody in, or nobody.
        volumes.append({"name": "keys", "secret": {"secretName": auth.api_keys_secret_ref.name}})
    container: Manifest = {
        "image": options.router_image,
        "args": pods.told(asked, RouterOptions(), {"promise": f"$({pods.PROMISE_VARIABLE})"}),
        "env": pods.environment(name),
        "ports": [
            {"name": "http", "containerPort": names.CLIENT_PORT},
            {"name": "admin", "containerPort": names.ADMIN_PORT},
        ],
        "startupProbe": pods.probe("/healthz", names.ADMIN_PORT, every_s=1, failures=60, timeout_s=2),
        "readinessProbe": pods.probe(
            "/readyz", names.ADMIN_PORT, every_s=2, failures=UNREADY_S // 2, timeout_s=2
        ),
        "livenessProbe": pods.probe("/healthz", names.ADMIN_PORT, every_s=10, failures=3, timeout_s=5),
        "resources": RESOURCES,
        "volumeMounts": mounts,
    }
    return {
        "metadata": {
            "labels": names.labels(name, names.ROUTER),
            "annotations": {pods.TOKEN_ANNOTATION: facts.token_sha256},
        },
        "spec": pods.spec(
            name,
            names.ROUTER,
            container,
            options,
            automountServiceAccountToken=True,  # it watches EndpointSlices
            terminationGracePeriodSeconds=pods.grace_s(asked.patience.drain_s),
            topologySpreadConstraints=pods.spread_over_hosts(name, names.ROUTER),
            affinity=pods.apart_by_zone(name, names.ROUTER),
            tolerations=pods.tolerating_loss(LOST_HOST_S),
            volumes=volumes,
        ),
    }
