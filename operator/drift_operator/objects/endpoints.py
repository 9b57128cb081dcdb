"""How routers find nodes, and how clients find routers: Services and the Ingress."""

from __future__ import annotations

from drift_operator.driftservice import DriftService, ExposedIngress
from drift_operator.objects import kinds, metadata, names
from drift_operator.objects.facts import Facts
from drift_operator.objects.metadata import Manifest
from drift_router.options import Limits

STREAM_S = 3600
"""A proxy's time-out between two bytes: a long prompt's first token may be minutes away, and the router has time-outs
of its own."""

INGRESS_ANNOTATIONS = {
    "nginx.ingress.kubernetes.io/proxy-buffering": "off",
    "nginx.ingress.kubernetes.io/proxy-read-timeout": str(STREAM_S),
    "nginx.ingress.kubernetes.io/proxy-send-timeout": str(STREAM_S),
    "nginx.ingress.kubernetes.io/proxy-body-size": str(Limits().body_bytes),
}
"""Tokens are passed on as they come. ingress-nginx buffers and limits by default, so only it needs to be told; others
ignore these."""


def build(service: DriftService, facts: Facts) -> list[Manifest]:
    ingress = service.spec.expose.ingress
    return [
        _nodes(service, facts),
        _clients(service, facts),
        *([_ingress(service, ingress, facts)] if ingress is not None else []),
    ]


def _nodes(service: DriftService, facts: Facts) -> Manifest:
    name = service.metadata.name
    made = metadata.begun(kinds.SERVICE, names.nodes_service(name), service, facts, names.NODE)
    return made | {
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": False,
            "selector": names.selector(name, names.NODE),
            "ports": [
                {"name": "api", "port": names.API_PORT, "targetPort": names.API_PORT},
                {"name": "control", "port": names.CONTROL_PORT, "targetPort": names.CONTROL_PORT},
            ],
        }
    }


def _clients(service: DriftService, facts: Facts) -> Manifest:
    name, exposed = service.metadata.name, service.spec.expose.service
    made = metadata.begun(
        kinds.SERVICE,
        names.client_service(name),
        service,
        facts,
        names.ROUTER,
        annotations=exposed.annotations,
    )
    return made | {
        "spec": {
            "type": exposed.type,
            "selector": names.selector(name, names.ROUTER),
            "ports": [{"name": "http", "port": exposed.port, "targetPort": names.CLIENT_PORT}],
        }
    }


def _ingress(service: DriftService, exposed: ExposedIngress, facts: Facts) -> Manifest:
    name = names.client_service(service.metadata.name)
    made = metadata.begun(
        kinds.INGRESS,
        name,
        service,
        facts,
        names.ROUTER,
        annotations={**INGRESS_ANNOTATIONS, **(exposed.annotations or {})},
    )
    backend = {"service": {"name": name, "port": {"name": "http"}}}
    spec: Manifest = {
        "rules": [
            {
                "host": exposed.host,
                "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]},
            }
        ]
    }
    if exposed.class_name is not None:
        spec["ingressClassName"] = exposed.class_name
    if exposed.tls_secret_name is not None:
        spec["tls"] = [{"hosts": [exposed.host], "secretName": exposed.tls_secret_name}]
    return made | {"spec": spec}
