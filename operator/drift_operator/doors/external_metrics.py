"""The API external.metrics.k8s.io/v1beta1 as documents: what it is, what it answers, how it refuses.

Pure. A metric that is not known, or not known any more, is a 404 and never a zero: an HPA then holds.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from drift_operator.doors.figures import Figures, ServiceFigures
from drift_operator.doors.label_selectors import Selector

GROUP, VERSION = "external.metrics.k8s.io", "v1beta1"
GROUP_VERSION = f"{GROUP}/{VERSION}"
ROOT = f"/apis/{GROUP_VERSION}"

SERVICE_LABEL = "service"
"""The one label of every series: the DriftService's name."""

PRESSURE, DESIRED_REPLICAS = "drift_slo_pressure", "drift_desired_replicas"
"""For an HPA: Value with target 1; AverageValue with target 1."""
METRICS = (PRESSURE, DESIRED_REPLICAS)

Document = dict[str, Any]

_VERSIONS = {"groupVersion": GROUP_VERSION, "version": VERSION}
_API_GROUP: Document = {"name": GROUP, "versions": [_VERSIONS], "preferredVersion": _VERSIONS}

REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    500: "InternalError",
    503: "ServiceUnavailable",
}


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """Something that a client is told as a Status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code

    def status(self) -> Document:
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": str(self),
            "reason": REASONS.get(self.code, "Unknown"),
            "code": self.code,
        }


def discovery() -> dict[str, Document]:
    """Path to the document that stands there, for those who ask what this API server has."""
    resource = {"kind": "ExternalMetricValueList", "namespaced": True, "singularName": "", "verbs": ["get"]}
    return {
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_API_GROUP]},
        f"/apis/{GROUP}": {"kind": "APIGroup", "apiVersion": "v1", **_API_GROUP},
        ROOT: {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": GROUP_VERSION,
            "resources": [{"name": metric, **resource} for metric in METRICS],
        },
        "/openapi/v2": {"swagger": "2.0", "info": {"title": "Drift", "version": VERSION}, "paths": {}},
        "/openapi/v3": {"paths": {}},
    }


@dataclass(frozen=True, slots=True)
class Access:
    """What a request wants, in the words of a SubjectAccessReview."""

    verb: str
    path: str
    namespace: str | None = None
    resource: str | None = None

    @classmethod
    def of(cls, method: str, path: str) -> Access:
        """Listed are a metric's series, so the verb is `list` as it is for other lists."""
        below = path.removeprefix(f"{ROOT}/namespaces/").split("/") if path.startswith(f"{ROOT}/") else []
        if len(below) == 2 and all(below):
            verb = {"GET": "list", "HEAD": "list", "DELETE": "deletecollection", "POST": "create"}
            return cls(verb.get(method, method.lower()), path, namespace=below[0], resource=below[1])
        return cls(method.lower(), path)

    def attributes(self) -> Document:
        """The part of a SubjectAccessReview's spec that says what is wanted."""
        if self.resource is None:
            return {"nonResourceAttributes": {"path": self.path, "verb": self.verb}}
        return {
            "resourceAttributes": {
                "group": GROUP,
                "version": VERSION,
                "namespace": self.namespace,
                "resource": self.resource,
                "verb": self.verb,
            }
        }


def values(
    figures: Figures,
    namespace: str,
    metric: str,
    selector: Selector,
    *,
    now_s: float,
    now: datetime.datetime,
) -> Document:
    """An ExternalMetricValueList with one value for each selected service. `now_s` is of the clock that figures are
    dated by, `now` the same moment on the wall.

    Raises Refused with 404 where the metric, or its value for any of them, is unknown: an HPA adds up what it gets,
    and a sum without one of its parts would be wrong.
    """
    if metric not in METRICS:
        raise Refused(404, f"there is no metric {metric!r}; there are {' and '.join(METRICS)}")
    chosen = [
        service
        for service in figures.all()
        if service.namespace == namespace and selector.matches({SERVICE_LABEL: service.name})
    ]
    if not chosen:
        raise Refused(404, f"no DriftService of namespace {namespace!r} is known that the selector selects")
    items = [_item(service, metric, now_s, now) for service in sorted(chosen, key=lambda one: one.name)]
    return {
        "kind": "ExternalMetricValueList",
        "apiVersion": GROUP_VERSION,
        "metadata": {},
        "items": items,
    }


def quantity(value: float) -> str:
    """A number as Kubernetes writes it, in thousandths and rounded up: no demand becomes none."""
    assert math.isfinite(value), value
    thousandths = math.ceil(round(value * 1000, 6))
    return f"{thousandths}m" if thousandths % 1000 else str(thousandths // 1000)


def _item(service: ServiceFigures, metric: str, now_s: float, now: datetime.datetime) -> Mapping[str, Any]:
    if (why := service.why_unknown(now_s)) is not None:
        raise Refused(404, why)
    value = service.pressure_at(now_s) if metric == PRESSURE else service.desired_replicas_at(now_s)
    age_s = service.age_s(now_s)
    if value is None or age_s is None:
        raise Refused(404, f"{metric} of service {service.namespace}/{service.name} is unknown")
    measured = now - datetime.timedelta(seconds=age_s)
    return {
        "metricName": metric,
        "metricLabels": {SERVICE_LABEL: service.name},
        "timestamp": measured.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "value": quantity(value),
    }
