"""PodDisruptionBudgets: of each component, one pod at a time may be evicted.

They never keep a host from being drained: counted in pods that may be missing, they let the only one go too.
"""

from __future__ import annotations

from drift_operator.driftservice import DriftService
from drift_operator.objects import kinds, metadata, names
from drift_operator.objects.facts import Facts
from drift_operator.objects.metadata import Manifest


def build(service: DriftService, facts: Facts) -> list[Manifest]:
    name = service.metadata.name
    return [
        metadata.begun(kinds.DISRUPTION_BUDGET, names.deployment(name, component), service, facts, component)
        | {
            "spec": {
                "maxUnavailable": 1,
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
                "selector": {"matchLabels": names.selector(name, component)},
            }
        }
        for component in (names.NODE, names.ROUTER)
    ]
