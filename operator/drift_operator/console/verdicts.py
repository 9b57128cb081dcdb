"""Is the promise kept? In one word, with why, and everything else that is not as it should be. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterator

from drift_operator.doors.figures import ServiceFigures
from drift_operator.status import Condition

GOOD = {
    "Ready": "True",
    "RouterReady": "True",
    "SLOMet": "True",
    "SLOFeasible": "True",
    "MetricsAvailable": "True",
    "Degraded": "False",
}
"""Conditions whose other status is a fault, the heaviest first."""

QUIET = {"Progressing": "False", "Paused": "False", "ScalingLimited": "False", "SplitConverged": "True"}
"""Conditions whose other status people want to know about, though nothing is wrong."""

GIVEN_UP = "DeploymentFailed"
"""Reason of a Progressing that is False, and no good news."""


class Verdict(enum.StrEnum):
    """The most urgent first."""

    DOWN = "down"  # it answers no requests
    MISSED = "missed"  # the promise
    UNKNOWN = "unknown"  # nobody knows now: not looked at yet, or the figures are old
    IDLE = "idle"  # ready; no request to judge the promise by
    KEPT = "kept"


def judge(figures: ServiceFigures, now_s: float) -> tuple[Verdict, str]:
    """With a sentence that says why."""
    ready, met = _condition(figures, "Ready"), _condition(figures, "SLOMet")
    if ready is not None and ready.status != "True":
        return Verdict.DOWN, ready.message
    if (why := figures.why_unknown(now_s)) is not None:
        return Verdict.UNKNOWN, why
    if met is None or met.status == "Unknown":
        return Verdict.IDLE, met.message if met is not None else "no request to judge the promise by"
    return (Verdict.KEPT if met.status == "True" else Verdict.MISSED), met.message


def concerns(figures: ServiceFigures) -> Iterator[tuple[bool, Condition]]:
    """Faults first, each with True; then what only explains what is going on."""
    for expected, fault in ((GOOD, True), (QUIET, False)):
        for kind, good in expected.items():
            found = _condition(figures, kind)
            if found is not None and (found.reason == GIVEN_UP or found.status not in (good, "Unknown")):
                yield fault or found.reason == GIVEN_UP, found


def _condition(figures: ServiceFigures, kind: str) -> Condition | None:
    return next((each for each in figures.conditions if each.type == kind), None)
