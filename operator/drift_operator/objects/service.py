"""A DriftService as all its objects, in the order in which they are applied."""

from __future__ import annotations

from drift_operator import processes
from drift_operator.driftservice import DriftService
from drift_operator.objects import (
    access,
    alerts,
    dashboards,
    disruption,
    endpoints,
    kinds,
    monitoring,
    network,
    nodes,
    promise,
    routers,
    scaling,
    weights,
)
from drift_operator.objects.facts import Facts
from drift_operator.objects.kinds import Kind
from drift_operator.objects.metadata import Manifest
from drift_operator.options import OperatorOptions


def build(service: DriftService, options: OperatorOptions, facts: Facts) -> list[Manifest]:
    """Of a service without `problems`. What pods need comes before them; the control Secret is not among these."""
    return [
        *access.build(service, facts),
        promise.build(service, facts),
        *network.build(service, options, facts),
        *endpoints.build(service, facts),
        *disruption.build(service, facts),
        nodes.build(service, options, facts),
        routers.build(service, options, facts),
        *scaling.build(service, options, facts),
        *monitoring.build(service, facts),
        *alerts.build(service, facts),
        *dashboards.build(service, facts),
    ]


def kinds_wanted(service: DriftService) -> dict[str, str]:
    """The optional kinds (as in `Facts.kinds`) that the service can't do without, each with the field that asks."""
    wanted: dict[str, str] = {}
    autoscaler = scaling.kind(service)
    if autoscaler is not None:
        wanted[str(autoscaler)] = "spec.autoscaling.mode"
    if service.spec.observability.pod_monitor == "Enabled":
        wanted[str(kinds.POD_MONITOR)] = "spec.observability.podMonitor"
    return wanted


def prunable() -> tuple[Kind, ...]:
    """The kinds of which a changed spec may want fewer objects; those of `kinds.OPTIONAL` may be absent."""
    return (kinds.INGRESS, kinds.CONFIG_MAP, *kinds.OPTIONAL)


def problems(service: DriftService) -> list[str]:
    """What a cluster can't serve, one line each with its path; nothing is built for such a service."""
    place = weights.problem(service.spec.model)
    return [
        *processes.unserved(service),
        *([place] if place is not None else []),
        *nodes.faults(service),
    ]
