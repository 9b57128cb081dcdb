"""A Deployment as far as decisions need it, read from the API's object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Workload:
    wanted: int
    """`spec.replicas`."""
    seen: bool
    """The Deployment's controller has acted on its present spec; before, its counts are of an older one."""
    present: int
    updated: int
    """Of the present template."""
    ready: int
    available: int
    failure: str | None
    """Why its controller gave up, or can't make pods."""

    @property
    def rolling(self) -> bool:
        """Pods of an older template are there."""
        return not self.seen or self.updated < self.present


def read(item: Object | None) -> Workload | None:
    """None: there is no such Deployment."""
    if item is None:
        return None
    meta, spec, status = item["metadata"], item.get("spec") or {}, item.get("status") or {}
    return Workload(
        wanted=int(spec.get("replicas", 1)),
        seen=int(status.get("observedGeneration", 0)) >= int(meta.get("generation", 0)),
        present=int(status.get("replicas", 0)),
        updated=int(status.get("updatedReplicas", 0)),
        ready=int(status.get("readyReplicas", 0)),
        available=int(status.get("availableReplicas", 0)),
        failure=next(filter(None, map(_failure, status.get("conditions") or ())), None),
    )


def _failure(condition: Object) -> str | None:
    failed = (condition["type"] == "ReplicaFailure" and condition["status"] == "True") or (
        condition["type"] == "Progressing" and condition["status"] == "False"
    )
    return str(condition.get("message") or condition.get("reason")) if failed else None
