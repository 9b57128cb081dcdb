"""NetworkPolicies: what is not named here is refused, in both directions.

Clients reach routers from anywhere on the clients' port. Nodes are reached by their service's routers alone, and by
the operator on the control port. Prometheus (pods labelled app.kubernetes.io/name=prometheus, as the Prometheus
Operator's are) reaches the ports that have /metrics: a policy knows ports and not paths, so what else is on them
is guarded by the control token. Both get out to the port of `spec.observability.tracing`. Another collector, a proxy
or a mirror of models on another port needs a policy of its own: policies add up.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from drift_operator.driftservice import DriftService
from drift_operator.objects import kinds, metadata, names
from drift_operator.objects.facts import Facts
from drift_operator.objects.metadata import Manifest
from drift_operator.options import OperatorOptions

OPERATOR = "drift-operator"
"""Its pods' app.kubernetes.io/name."""

NAMESPACE_NAME = "kubernetes.io/metadata.name"

PROMETHEUS: Manifest = {
    "namespaceSelector": {},
    "podSelector": {"matchLabels": {names.NAME: "prometheus"}},
}

DNS: Manifest = {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}

DOWNLOAD_PORT = 443
DEFAULT_PORTS = {"http": 80, "https": 443}


def build(service: DriftService, options: OperatorOptions, facts: Facts) -> list[Manifest]:
    name = service.metadata.name
    nodes = {"podSelector": {"matchLabels": names.selector(name, names.NODE)}}
    routers = {"podSelector": {"matchLabels": names.selector(name, names.ROUTER)}}
    operator = {
        "namespaceSelector": {"matchLabels": {NAMESPACE_NAME: options.own_namespace}},
        "podSelector": {"matchLabels": {names.NAME: OPERATOR}},
    }
    downloads = service.spec.model.uri.startswith("hf://")
    collector = _collector(service)
    node_rules = {
        "ingress": [
            {"from": [routers], "ports": _tcp(names.API_PORT, names.CONTROL_PORT)},
            {"from": [operator], "ports": _tcp(names.CONTROL_PORT)},
            {"from": [PROMETHEUS], "ports": _tcp(names.API_PORT)},
        ],
        "egress": [DNS, *([{"ports": _tcp(DOWNLOAD_PORT)}] if downloads else []), *collector],
    }
    router_rules = {
        "ingress": [
            {"ports": _tcp(names.CLIENT_PORT)},
            {"from": [operator, PROMETHEUS], "ports": _tcp(names.ADMIN_PORT)},
        ],
        "egress": [
            DNS,
            {"to": [nodes], "ports": _tcp(names.API_PORT, names.CONTROL_PORT)},
            {"ports": _tcp(*options.api_server_ports)},
            *collector,
        ],
    }
    return [
        metadata.begun(kinds.NETWORK_POLICY, names.deployment(name, component), service, facts, component)
        | {"spec": {**pods, "policyTypes": ["Ingress", "Egress"], **rules}}
        for component, pods, rules in (
            (names.NODE, nodes, node_rules),
            (names.ROUTER, routers, router_rules),
        )
    ]


def _collector(service: DriftService) -> list[Manifest]:
    """On its port, wherever it is: a policy knows no names of hosts."""
    tracing = service.spec.observability.tracing
    if tracing is None:
        return []
    parts = urlsplit(tracing.endpoint)
    return [{"ports": _tcp(parts.port or DEFAULT_PORTS[parts.scheme])}]


def _tcp(*ports: int) -> list[Manifest]:
    return [{"protocol": "TCP", "port": port} for port in ports]
