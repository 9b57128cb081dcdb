"""What the console is told of services: by the operator of a cluster, or by whoever keeps one on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from drift_engine import wire
from drift_operator.doors.figures import ServiceFigures
from drift_operator.levers.attainment import NOTHING, Ledger, Sums
from drift_router.pictures import RouterReport

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Heard(Generic[T]):
    report: T | None
    """The last one, however old."""
    at_s: float
    """When it came, by the clock that figures are dated by."""
    problem: str = ""
    """Why there is none that is newer."""


@dataclass(frozen=True, slots=True)
class ServiceSeen:
    """One service at one moment."""

    figures: ServiceFigures
    model: str = ""
    """As its API names it; empty: not known (its spec can't be used)."""
    chat_url: str | None = None
    """Where this process reaches its OpenAI API, up to and with /v1; None: nowhere."""
    ledger: Ledger | None = None
    """What its routers counted; None: nothing yet."""
    nodes: Mapping[str, Heard[wire.Report]] = field(default_factory=dict)
    routers: Mapping[str, Heard[RouterReport]] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        return self.figures.namespace, self.figures.name

    @property
    def minute(self) -> Sums:
        """Over `levers.attainment.FAST_S`, without distributions. Added up anew at every call, as the next one is."""
        return self.ledger.fast.all if self.ledger is not None else NOTHING

    @property
    def window(self) -> Sums:
        """Over the promise's window."""
        return self.ledger.window.all if self.ledger is not None else NOTHING


class Known(Protocol):
    def seen(self) -> Iterable[ServiceSeen]:
        """Of all services there are. Never waits."""
