"""What a lever did and why: for status, events, metrics and log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Lever = Literal["split", "weight", "replicas"]


@dataclass(frozen=True, slots=True)
class Decision:
    """`before` and `after` are the lever's positions as they are shown; `reason` is one CamelCase word."""

    lever: Lever
    before: str
    after: str
    reason: str
    message: str
    """A sentence with the numbers that decided."""
    at_s: float
    node: str | None = None
    """None: the service as a whole."""


@dataclass(frozen=True, slots=True)
class Fact:
    """What a condition of the status says."""

    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str
