"""What the objects of a service are called, how they are labelled, and the ports that they agree on.

A service's name has at most 40 characters (`driftservice.NAME_CHARACTERS`), so every name here fits into 63, and so
do the pods' names that Kubernetes makes of them.
"""

from __future__ import annotations

from drift_operator import driftservice

FIELD_MANAGER = "drift-operator"

NAME = "app.kubernetes.io/name"
INSTANCE = "app.kubernetes.io/instance"
COMPONENT = "app.kubernetes.io/component"
MANAGED_BY = "app.kubernetes.io/managed-by"

NODE, ROUTER = "node", "router"
"""Components."""

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
LEAVES_FIRST = -1000
"""Deletion cost of a pod that leaves; others have none, which is 0."""
LEAVES_NOW = -2000
"""Of one that has nothing left to do: a Deployment that shrinks must not take one that has."""
DRAINING = f"{driftservice.GROUP}/draining"
"""Annotation of a node pod that leaves: since when, and until when it may finish its requests."""

API_PORT, CONTROL_PORT = 8000, 8001
"""Of a node."""
CLIENT_PORT, ADMIN_PORT = 8080, 8081
"""Of a router."""

TOKEN_KEY = "token"  # noqa: S105 - a Secret's key
PROMISE_KEY = "promise"


def labels(service: str, component: str | None = None) -> dict[str, str]:
    """Of every object; with a component, also of its pods."""
    own = {NAME: "drift", INSTANCE: service, MANAGED_BY: FIELD_MANAGER}
    return own | ({COMPONENT: component} if component is not None else {})


def selector(service: str, component: str) -> dict[str, str]:
    """What tells a component's pods from all others of the namespace. Never changes: Deployments can't change it."""
    return {NAME: "drift", INSTANCE: service, COMPONENT: component}


def selector_text(service: str, component: str) -> str:
    """As label selectors are written in URLs and in the scale subresource."""
    return ",".join(f"{key}={value}" for key, value in selector(service, component).items())


def deployment(service: str, component: str) -> str:
    return f"{service}-{component}"


def account(service: str, component: str) -> str:
    """ServiceAccount; Role and RoleBinding have the same name."""
    return f"{service}-{component}"


def client_service(service: str) -> str:
    """Service that clients reach the routers by; Ingress, HPA and the like have the same name."""
    return service


def nodes_service(service: str) -> str:
    """Headless Service whose EndpointSlices tell routers which nodes there are."""
    return f"{service}-nodes"


def control_secret(service: str) -> str:
    return f"{service}-control"


def promise_map(service: str) -> str:
    """ConfigMap of the promise that pods begin with."""
    return f"{service}-promise"


def dashboards_map(service: str) -> str:
    return f"{service}-dashboards"
