"""What the operator knows of each service, as its doors tell it.

In: what the reconciler measured and decided. Out: the same numbers through every door. What is unknown, absurd or
old is None here, so that no door has to judge: an autoscaler that is told nothing holds, one that is told zero
scales down.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from drift_operator.status import Condition, Decision, NodeStatus, Status

STALE_S = 60.0
"""Four rounds of the replica lever, or of an HPA. A service that is watched is measured every few seconds."""


@dataclass(frozen=True, slots=True)
class TargetFigures:
    """One half of the promise."""

    target_ms: float
    objective: float
    """Promised share of requests, 0 to 1."""
    attainment: float | None = None
    """Share of requests that met the target over the service's window; None: there was no request."""
    requests: int | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    burn_rates: Mapping[str, float] = field(default_factory=dict)
    """Window, as "1m", to how fast the allowance of missed targets is used up; 1 uses it up exactly."""


@dataclass(frozen=True, slots=True)
class ServiceFigures:
    """One service at one moment."""

    namespace: str
    name: str
    measured_s: float | None = None
    """When its nodes and routers last said how they do, by the clock that the doors have; None: never."""
    pressure: float | None = None
    """Demand over supply, 1 being all that the nodes can do within the promise. None: unknown."""
    desired_replicas: int | None = None
    present_replicas: int | None = None
    ttft: TargetFigures | None = None
    tbt: TargetFigures | None = None
    feasible: bool | None = None
    """False: one request alone on an empty node misses its target."""
    url: str | None = None
    conditions: tuple[Condition, ...] = ()
    nodes: tuple[NodeStatus, ...] = ()
    decisions: tuple[Decision, ...] = ()
    """Newest first; how many is for whoever keeps them to bound."""
    status: Status | None = None
    """All that is told of it, as in the DriftService."""

    @property
    def targets(self) -> dict[str, TargetFigures]:
        """By the promise's name, as the metrics' label `slo` has it."""
        found = {"ttft": self.ttft, "tbt": self.tbt}
        return {name: target for name, target in found.items() if target is not None}

    def age_s(self, now_s: float) -> float | None:
        return None if self.measured_s is None else max(0.0, now_s - self.measured_s)

    def why_unknown(self, now_s: float) -> str | None:
        """In words, why nobody should act on these figures now; None: they are good."""
        age_s = self.age_s(now_s)
        if age_s is None:
            return f"service {self.namespace}/{self.name} has not been measured yet"
        if age_s > STALE_S:
            return (
                f"figures of service {self.namespace}/{self.name} are {age_s:.0f} s old, "
                f"more than the maximum {STALE_S:g} s"
            )
        return None

    def pressure_at(self, now_s: float) -> float | None:
        return _sound(self.pressure) if self.why_unknown(now_s) is None else None

    def desired_replicas_at(self, now_s: float) -> int | None:
        if self.desired_replicas is None or self.desired_replicas < 0:
            return None
        return self.desired_replicas if self.why_unknown(now_s) is None else None


class Figures(Protocol):
    """The operator's memory of its services; reads never wait."""

    def lookup(self, namespace: str, name: str) -> ServiceFigures | None:
        """None for a service that the operator doesn't know (yet)."""

    def all(self) -> Iterable[ServiceFigures]:
        """Of all services there are: one that is deleted is not among them."""


def _sound(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) and number >= 0 else None
