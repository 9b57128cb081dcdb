"""A service's figures for the doors, from what was decided and what the status says."""

from __future__ import annotations

from collections.abc import Mapping

from drift_operator.doors.figures import ServiceFigures, TargetFigures
from drift_operator.driftservice import DriftService
from drift_operator.levers.attainment import Ledger
from drift_operator.levers.levers import Outcome
from drift_operator.status import SloStatus, Status, TargetStatus


def figures(
    service: DriftService,
    outcome: Outcome,
    ledger: Ledger | None,
    shown: Status,
    before: ServiceFigures | None,
    now_s: float,
) -> ServiceFigures:
    """Dated by the levers' clock. What could not be measured now keeps its date, so that the doors see it age."""
    said = shown.slo or SloStatus()
    measured = outcome.facts["MetricsAvailable"].status == "True"
    slo = service.spec.slo
    feasible = outcome.facts["SLOFeasible"].status
    windows = {"1m": ledger.fast.all, "10m": ledger.slow.all} if ledger is not None else {}
    ttft = {window: sums.ttft.burn(slo.ttft.attainment) for window, sums in windows.items()}
    tbt = {window: sums.tbt.burn(slo.tbt.attainment) for window, sums in windows.items()}
    return ServiceFigures(
        namespace=service.metadata.namespace or "default",
        name=service.metadata.name,
        measured_s=now_s if measured else before.measured_s if before is not None else None,
        pressure=outcome.pressure,
        desired_replicas=shown.desired_replicas,
        present_replicas=shown.replicas,
        ttft=_target(slo.ttft.target_ms, slo.ttft.attainment, said.ttft, ttft),
        tbt=_target(slo.tbt.target_ms, slo.tbt.attainment, said.tbt, tbt),
        feasible=None if feasible == "Unknown" else feasible == "True",
        url=shown.url,
        conditions=tuple(shown.conditions or ()),
        nodes=tuple(shown.nodes or ()),
        decisions=tuple(shown.decisions or ()),
        status=shown,
    )


def _target(
    target_ms: int, objective: float, shown: TargetStatus | None, burn_rates: Mapping[str, float | None]
) -> TargetFigures:
    shown = shown or TargetStatus()
    return TargetFigures(
        float(target_ms),
        objective,
        shown.attainment,
        shown.requests,
        shown.p50_ms,
        shown.p99_ms,
        {window: rate for window, rate in burn_rates.items() if rate is not None},
    )
