"""PodMonitors of nodes and routers, where the cluster has the Prometheus Operator.

Every series gets the label `service`, by which `alerts` and `dashboards` select, beside the namespace that the
Prometheus Operator gives it.
"""

from __future__ import annotations

from drift_operator.driftservice import DriftService
from drift_operator.objects import kinds, metadata, names
from drift_operator.objects.facts import Facts
from drift_operator.objects.metadata import Manifest

PORTS = {names.NODE: "api", names.ROUTER: "admin"}
"""Component -> the name of its container's port that has /metrics."""


def asked(service: DriftService, facts: Facts) -> bool:
    wanted = service.spec.observability.pod_monitor != "Disabled"
    return wanted and str(kinds.POD_MONITOR) in facts.kinds


def build(service: DriftService, facts: Facts) -> list[Manifest]:
    if not asked(service, facts):
        return []
    name = service.metadata.name
    return [
        metadata.begun(
            kinds.POD_MONITOR,
            names.deployment(name, component),
            service,
            facts,
            component,
            labels=service.spec.observability.pod_monitor_labels,
        )
        | {
            "spec": {
                "selector": {"matchLabels": names.selector(name, component)},
                "podMetricsEndpoints": [
                    {
                        "port": port,
                        "path": "/metrics",
                        "relabelings": [{"action": "replace", "targetLabel": "service", "replacement": name}],
                    }
                ],
            }
        }
        for component, port in PORTS.items()
    ]


def series(service: DriftService, name: str, **labels: str) -> str:
    """PromQL for one metric of the service: `name{namespace="default",service="chat"}`."""
    own = {"namespace": metadata.namespace(service), "service": service.metadata.name, **labels}
    matchers = ",".join(f'{label}="{value}"' for label, value in own.items())
    return f"{name}{{{matchers}}}"
