"""The kinds that the operator deals in, and where the API server has them."""

from __future__ import annotations

from collections.abc import Mapping

from drift_operator import crd, driftservice
from drift_operator.objects.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    INGRESS,
    NETWORK_POLICY,
    OPTIONAL,
    ROLE,
    ROLE_BINDING,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    Kind,
)

DRIFT_SERVICE = Kind(driftservice.API_VERSION, driftservice.KIND, crd.PLURAL)
POD = Kind("v1", "Pod", "pods")
EVENT = Kind("v1", "Event", "events")
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")
DEFINITION = Kind(
    "apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False
)
API_SERVICE = Kind("apiregistration.k8s.io/v1", "APIService", "apiservices", namespaced=False)
TOKEN_REVIEW = Kind("authentication.k8s.io/v1", "TokenReview", "tokenreviews", namespaced=False)
ACCESS_REVIEW = Kind(
    "authorization.k8s.io/v1", "SubjectAccessReview", "subjectaccessreviews", namespaced=False
)

OWNED = (
    DEPLOYMENT,
    SERVICE,
    SERVICE_ACCOUNT,
    CONFIG_MAP,
    ROLE,
    ROLE_BINDING,
    DISRUPTION_BUDGET,
    NETWORK_POLICY,
    INGRESS,
)
"""What services become on every cluster, apart from the Secret, which nobody may list. `OPTIONAL` are the others."""

_BY_NAME = {
    (kind.api_version, kind.kind): kind
    for kind in (DRIFT_SERVICE, POD, SECRET, EVENT, LEASE, DEFINITION, API_SERVICE, *OWNED, *OPTIONAL)
}


def of(manifest: Mapping[str, object]) -> Kind:
    """Raises KeyError for a kind that the operator does not deal in."""
    return _BY_NAME[str(manifest["apiVersion"]), str(manifest["kind"])]


def path(kind: Kind, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
    """Of one object, or of all of them in a namespace (None: in all namespaces)."""
    parts = [("/apis/" if "/" in kind.api_version else "/api/") + kind.api_version]
    if kind.namespaced and namespace is not None:
        parts += ["namespaces", namespace]
    parts.append(kind.plural)
    return "/".join([*parts, *(part for part in (name, subresource) if part is not None)])
