"""The promise that pods begin with, in a ConfigMap.

It is no part of their templates: a changed promise is told to the pods that run, and replaces none of them. A pod
that starts later, with or without the operator, reads the present one.
"""

from __future__ import annotations

import msgspec

from drift_operator import processes
from drift_operator.driftservice import DriftService
from drift_operator.objects import kinds, metadata, names
from drift_operator.objects.facts import Facts
from drift_operator.objects.metadata import Manifest


def build(service: DriftService, facts: Facts) -> Manifest:
    """Its text is JSON that a node reads as SloOptions and a router as Promise."""
    made = metadata.begun(kinds.CONFIG_MAP, names.promise_map(service.metadata.name), service, facts)
    text = msgspec.json.encode(processes.router(service).promise).decode()
    return made | {"data": {names.PROMISE_KEY: text}}
