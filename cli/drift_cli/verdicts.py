"""Is a service's promise kept, and what is not as it should be? Pure, over a DriftService with its status."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from drift_operator.driftservice import DriftService
from drift_operator.status import Condition

GOOD: Mapping[str, str] = {
    "Ready": "True",
    "RouterReady": "True",
    "SLOMet": "True",
    "SLOFeasible": "True",
    "MetricsAvailable": "True",
    "Degraded": "False",
}
"""Conditions whose other status is a fault, with the one that is none."""

QUIET: Mapping[str, str] = {
    "Progressing": "False",
    "Paused": "False",
    "ScalingLimited": "False",
    "SplitConverged": "True",
}
"""Conditions whose other status people want to know about, though nothing is wrong."""

GIVEN_UP = "DeploymentFailed"
"""Reason of a Progressing that is False, and no good news."""


class Verdict(enum.Enum):
    """In the words of the page."""

    KEPT = "promise kept"
    QUIET = "ready; no request to judge the promise by"
    BROKEN = "promise broken"
    NOT_READY = "not ready"
    UNSEEN = "not looked at yet"
    """No operator has written a status for the present spec."""

    @property
    def good(self) -> bool:
        return self in (Verdict.KEPT, Verdict.QUIET)


@dataclass(frozen=True, slots=True)
class Concern:
    """A condition that people should know of."""

    fault: bool
    """False: it only explains what is going on."""
    condition: Condition


def condition(service: DriftService, kind: str) -> Condition | None:
    found = service.status.conditions if service.status is not None else None
    return next((each for each in found or () if each.type == kind), None)


def judge(service: DriftService) -> Verdict:
    """A status of an older spec says nothing of the present one, as for `kubectl wait`."""
    ready, met = condition(service, "Ready"), condition(service, "SLOMet")
    if ready is None or _behind(service):
        return Verdict.UNSEEN
    if ready.status != "True":
        return Verdict.NOT_READY
    if met is None or met.status == "Unknown":
        return Verdict.QUIET
    return Verdict.KEPT if met.status == "True" else Verdict.BROKEN


def concerns(service: DriftService) -> Iterator[Concern]:
    """Faults first, in the order of their weight."""
    for expected, fault in ((GOOD, True), (QUIET, False)):
        for kind, good in expected.items():
            found = condition(service, kind)
            if found is None:
                continue
            if found.reason == GIVEN_UP:
                yield Concern(fault=True, condition=found)
            elif found.status not in (good, "Unknown"):
                yield Concern(fault, found)
    for kind in GOOD:
        found = condition(service, kind)
        if found is not None and found.status == "Unknown":
            yield Concern(fault=False, condition=found)


def age_s(timestamp: str, now: datetime.datetime) -> float:
    """Of one of the status' times; never negative, for clocks differ."""
    return max(0.0, (now - datetime.datetime.fromisoformat(timestamp)).total_seconds())


def _behind(service: DriftService) -> bool:
    assert service.status is not None
    seen, present = service.status.observed_generation, service.metadata.generation
    return seen is not None and present is not None and seen < present
