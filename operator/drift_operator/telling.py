"""What people and doors are told after a pass: status, events, the log, metrics and figures."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from drift_operator.doors.figures import ServiceFigures
from drift_operator.doors.metrics import Metrics
from drift_operator.driftservice import DriftService
from drift_operator.levers.attainment import Ledger
from drift_operator.levers.decisions import Decision
from drift_operator.levers.levers import Outcome
from drift_operator.places import Place, Service
from drift_operator.reconciling import conditions, figured, statuses
from drift_operator.reconciling.views import View
from drift_operator.status import Status

log = logging.getLogger(__name__)

Object = dict[str, Any]

FIGURES_S = 5.0
"""A busy service's figures change with every request; a status is read by people."""

MESSAGE_CHARACTERS = 1024
"""The status's bound."""


class Telling:
    """Of one service."""

    def __init__(self, place: Place, metrics: Metrics, key: Service) -> None:
        self.figures: ServiceFigures | None = None
        """None: nothing was told yet."""
        self._place = place
        self._metrics = metrics
        self._key = key
        self._shown: tuple[Object, Status] | None = None
        self._told = _Told()

    async def refuse(self, body: Object, problems: Sequence[str], now_s: float, unix_s: float) -> None:
        """The spec can't be used: what runs goes on, and a person has to change it. Raises Gone."""
        generation = int(body["metadata"]["generation"])
        facts = conditions.of_broken_spec(problems)
        status = statuses.of_broken_spec(self._written(body), facts, generation, unix_s)
        shown = Status.model_validate(status)
        self.figures = dataclasses.replace(
            self.figures or ServiceFigures(*self._key), conditions=tuple(shown.conditions or ())
        )
        await self._write(body, status, now_s)

    async def tell(
        self,
        body: Object,
        service: DriftService,
        view: View,
        outcome: Outcome,
        ledger: Ledger | None,
        now_s: float,
        unix_s: float,
    ) -> None:
        """Raises Gone where there is no such service any more."""
        written = self._written(body)
        ready = conditions.status_of(written, "Ready") == "True"
        facts = conditions.of_cluster(view, was_ready=ready, paused=service.spec.paused)
        facts |= outcome.facts
        if service.spec.autoscaling is not None and service.spec.autoscaling.mode == "HPA":
            facts |= conditions.of_metrics_provider(self._place.foreign_metrics())
        status = statuses.made(
            service,
            view,
            facts,
            written,
            url=self._place.url(service),
            slo=outcome.slo.model_dump(by_alias=True, exclude_none=True) or None,
            desired=outcome.desired,
            weights={name: point.weight for name, point in outcome.sent.items()},
            epochs={name: point.epoch for name, point in outcome.sent.items()},
            decisions=[_decision(each, unix_s - now_s) for each in outcome.decisions],
            unix_s=unix_s,
        )
        for each in outcome.decisions:
            self._decided(body, each)
        if self._shown is None or self._shown[0] != status:
            self._shown = status, Status.model_validate(status)
        self.figures = figured.figures(service, outcome, ledger, self._shown[1], self.figures, now_s)
        if statuses.worth_writing(status, written, now_s - self._told.at_s, FIGURES_S):
            await self._write(body, status, now_s)

    def _decided(self, body: Object, decision: Decision) -> None:
        self._metrics.decided(self._key, decision.lever, decision.reason)
        told = dataclasses.asdict(decision)
        told["why"] = told.pop("message")  # a log record has a message of its own
        log.info("decided", extra={"service": "/".join(self._key), **told})
        if decision.lever == "replicas":
            self._place.record(body, "Normal", decision.reason, decision.message)

    def _written(self, body: Object) -> Object:
        """The status that stands there: ours, or the last operator's."""
        return self._told.status if self._told.status is not None else body.get("status") or {}

    async def _write(self, body: Object, status: Object, now_s: float) -> None:
        before = self._written(body)
        if status == before:
            return
        await self._place.write(body, status)
        for kind, reason, message in conditions.turns(before, status):
            self._place.record(body, kind, reason, message)
        self._told = _Told(status, now_s)


@dataclass(frozen=True)
class _Told:
    """The status as it was last written, and when."""

    status: Object | None = None
    at_s: float = -math.inf


def _decision(decision: Decision, behind_s: float) -> Object:
    """As the status has it. `behind_s`: what Unix time is ahead of the levers' clock."""
    made = {
        "time": statuses.timestamp(decision.at_s + behind_s),
        "lever": decision.lever,
        "from": decision.before,
        "to": decision.after,
        "reason": decision.reason,
        "message": decision.message[:MESSAGE_CHARACTERS],
    }
    return made | ({"node": decision.node} if decision.node is not None else {})
