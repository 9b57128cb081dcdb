"""The way to an operator's external metrics on a test cluster: what the chart makes for it, without a pod behind it.

The Service leads to this machine, under the address by which the API server reaches it.
"""

from __future__ import annotations

import collections
import contextlib
import secrets
from collections.abc import Iterator
from typing import Any

import helm
from clusters import Cluster
from drift_operator.local import ports
from drift_operator.options import OperatorOptions

SERVICE = "drift-operator-metrics"
"""As the chart calls it."""

WANTED = {"ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "APIService"}

Object = dict[str, Any]


def chart(namespace: str) -> dict[str, list[Object]]:
    """By namespace. The Service has no selector here."""
    rendered = helm.render({"externalMetrics": {"enabled": True}}, namespace=namespace, hooks=False)
    service = helm.find(rendered, "Service", SERVICE)
    del service["spec"]["selector"]
    found = collections.defaultdict(list)
    for item in (service, *(item for item in rendered if item["kind"] in WANTED)):
        found[str(item["metadata"].get("namespace", "default"))].append(item)
    return found


def endpoints(options: OperatorOptions, host: str) -> Object:
    """An EndpointSlice of the Service."""
    name = options.external_metrics_service
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": options.own_namespace,
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [host], "conditions": {"ready": True}}],
        "ports": [{"name": "https", "port": options.external_metrics_port}],
    }


@contextlib.contextmanager
def opened(cluster: Cluster) -> Iterator[dict[str, Any]]:
    """Fields of OperatorOptions for an operator whose metrics the cluster's autoscalers then read."""
    namespace = f"doors-{secrets.token_hex(4)}"
    asked: dict[str, Any] = {
        "own_namespace": namespace,
        "host": "0.0.0.0",
        "external_metrics_port": ports.free(cluster.host)[0],
    }
    options = OperatorOptions(engine_image="-", router_image="-", **asked)
    cluster.kubectl("create", "namespace", namespace)
    made = chart(namespace)
    try:
        for where, items in made.items():
            cluster.kubectl.within(where).apply(*items)
        cluster.kubectl.within(namespace).apply(endpoints(options, cluster.host))
        yield asked
    finally:
        for where in made.keys() - {namespace}:
            for item in made[where]:
                cluster.kubectl.within(where).delete(item["kind"], item["metadata"]["name"])
        cluster.kubectl("delete", "namespace", namespace, "--wait=false")
