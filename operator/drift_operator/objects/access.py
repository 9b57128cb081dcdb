"""Who a service's pods are, what they may ask of the API server, and the secret that they share with the operator.

Routers read which nodes there are; nodes have no rights and no token.
"""

from __future__ import annotations

from drift_operator.driftservice import DriftService
from drift_operator.objects import kinds, metadata, names
from drift_operator.objects.facts import Facts
from drift_operator.objects.metadata import Manifest

ROUTER_RULES: list[Manifest] = [
    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"]}
]
"""An operator can only hand on rights that it has itself."""


def build(service: DriftService, facts: Facts) -> list[Manifest]:
    name, namespace = service.metadata.name, metadata.namespace(service)
    accounts = []
    for component in (names.NODE, names.ROUTER):
        account = metadata.begun(
            kinds.SERVICE_ACCOUNT, names.account(name, component), service, facts, component
        )
        accounts.append(account | {"automountServiceAccountToken": False})
    router = names.account(name, names.ROUTER)
    role = metadata.begun(kinds.ROLE, router, service, facts, names.ROUTER)
    binding = metadata.begun(kinds.ROLE_BINDING, router, service, facts, names.ROUTER)
    return [
        *accounts,
        role | {"rules": ROUTER_RULES},
        binding
        | {
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": router},
            "subjects": [{"kind": "ServiceAccount", "name": router, "namespace": namespace}],
        },
    ]


def control_secret(service: DriftService, facts: Facts, token: str) -> Manifest:
    """To be created once, before everything else; its digest is `Facts.token_sha256`."""
    made = metadata.begun(kinds.SECRET, names.control_secret(service.metadata.name), service, facts)
    return made | {"type": "Opaque", "stringData": {names.TOKEN_KEY: token}}
