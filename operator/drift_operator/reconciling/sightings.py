"""What a pod last told of itself, and when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from drift_operator.reconciling.pods import Pod

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sighting(Generic[T]):
    pod: Pod
    report: T | None
    """The last one, however old."""
    at_s: float
    """When it came."""
    trouble: str | None
    """Why there is none that is newer."""
