"""What every object of a service begins with: kind, name, labels, and the DriftService as its owner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drift_operator import driftservice
from drift_operator.driftservice import DriftService
from drift_operator.objects import names
from drift_operator.objects.facts import Facts
from drift_operator.objects.kinds import Kind

Manifest = dict[str, Any]
"""To be read only: objects share their unchanging parts."""

DEFAULT_NAMESPACE = "default"
"""Of a document that comes from a file; the API server names one always."""


def namespace(service: DriftService) -> str:
    return service.metadata.namespace or DEFAULT_NAMESPACE


def begun(
    kind: Kind,
    name: str,
    service: DriftService,
    facts: Facts,
    component: str | None = None,
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Manifest:
    """An object without its content. Drift's own labels win over `labels`."""
    metadata: Manifest = {
        "name": name,
        "namespace": namespace(service),
        "labels": {**(labels or {}), **names.labels(service.metadata.name, component)},
        "ownerReferences": [
            {
                "apiVersion": driftservice.API_VERSION,
                "kind": driftservice.KIND,
                "name": service.metadata.name,
                "uid": facts.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }
    if annotations:
        metadata["annotations"] = dict(annotations)
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata}
