"""The outside autoscaler of a service whose `autoscaling.mode` asks for one; both write its scale subresource.

They read one number, drift_slo_pressure: demand over supply, so that 1 is just enough. The HPA asks the aggregated
API external.metrics.k8s.io, KEDA the operator's JSON. A paused or advisory service keeps the object and is not moved.
"""

from __future__ import annotations

from drift_operator import driftservice
from drift_operator.driftservice import Autoscaling, DriftService
from drift_operator.fields import seconds
from drift_operator.objects import kinds, metadata, names
from drift_operator.objects.facts import Facts
from drift_operator.objects.kinds import Kind
from drift_operator.objects.metadata import Manifest
from drift_operator.options import OperatorOptions

PRESSURE = "drift_slo_pressure"
SERVICE_LABEL = "service"
"""Of the metric."""

TARGET = "1"

PERIOD_S = 60
UP_PERCENT = 100
"""At most twice the nodes a minute: new ones need that long to take load. Estimate."""
DOWN_PODS = 1
"""At most one node a minute: what its loss does is seen before the next one goes."""

POLL_S = 15
"""Of KEDA; the HPA's own default period."""


def kind(service: DriftService) -> Kind | None:
    """Of the object that `build` makes; None where no outside autoscaler is asked for, or it is not made by Drift."""
    autoscaling = service.spec.autoscaling
    match autoscaling.mode if autoscaling is not None else None:
        case "HPA":
            return kinds.AUTOSCALER
        case "KEDA":
            return kinds.SCALED_OBJECT
        case _:
            return None


def build(service: DriftService, options: OperatorOptions, facts: Facts) -> list[Manifest]:
    """Nothing where the cluster lacks the kind."""
    autoscaling, wanted = service.spec.autoscaling, kind(service)
    if autoscaling is None or wanted is None or str(wanted) not in facts.kinds:
        return []
    moves = not (service.spec.paused or autoscaling.advisory)
    if wanted is kinds.AUTOSCALER:
        return [_autoscaler(service, autoscaling, facts, moves=moves)]
    return [_scaled_object(service, autoscaling, options, facts, moves=moves)]


def pressure_url(namespace: str, service: str, options: OperatorOptions) -> str:
    host = f"{options.service}.{options.own_namespace}.svc"
    return f"http://{host}:{options.port}/v1/services/{namespace}/{service}/pressure"


def _autoscaler(service: DriftService, autoscaling: Autoscaling, facts: Facts, *, moves: bool) -> Manifest:
    name = service.metadata.name
    metric = {"name": PRESSURE, "selector": {"matchLabels": {SERVICE_LABEL: name}}}
    return metadata.begun(kinds.AUTOSCALER, names.client_service(name), service, facts, names.NODE) | {
        "spec": {
            "scaleTargetRef": _target(name),
            "minReplicas": autoscaling.min_replicas,
            "maxReplicas": autoscaling.max_replicas,
            "metrics": [
                {
                    "type": "External",
                    "external": {"metric": metric, "target": {"type": "Value", "value": TARGET}},
                }
            ],
            "behavior": _behavior(autoscaling, moves=moves),
        }
    }


def _scaled_object(
    service: DriftService, autoscaling: Autoscaling, options: OperatorOptions, facts: Facts, *, moves: bool
) -> Manifest:
    name = service.metadata.name
    made = metadata.begun(
        kinds.SCALED_OBJECT,
        names.client_service(name),
        service,
        facts,
        names.NODE,
        annotations=None if moves else {"autoscaling.keda.sh/paused": "true"},
    )
    return made | {
        "spec": {
            "scaleTargetRef": _target(name),
            "minReplicaCount": autoscaling.min_replicas,
            "maxReplicaCount": autoscaling.max_replicas,
            "pollingInterval": POLL_S,
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _behavior(autoscaling, moves=True)}},
            "triggers": [
                {
                    "type": "metrics-api",
                    "metricType": "Value",
                    "metadata": {
                        "url": pressure_url(metadata.namespace(service), name, options),
                        "valueLocation": "pressure",
                        "targetValue": TARGET,
                    },
                }
            ],
        }
    }


def _target(service: str) -> Manifest:
    return {"apiVersion": driftservice.API_VERSION, "kind": driftservice.KIND, "name": service}


def _behavior(autoscaling: Autoscaling, *, moves: bool) -> Manifest:
    chosen = "Max" if moves else "Disabled"
    return {
        "scaleUp": {
            "stabilizationWindowSeconds": int(seconds(autoscaling.stabilization.up)),
            "selectPolicy": chosen,
            "policies": [{"type": "Percent", "value": UP_PERCENT, "periodSeconds": PERIOD_S}],
        },
        "scaleDown": {
            "stabilizationWindowSeconds": int(seconds(autoscaling.stabilization.down)),
            "selectPolicy": chosen,
            "policies": [{"type": "Pods", "value": DOWN_PODS, "periodSeconds": PERIOD_S}],
        },
    }
