"""What would have to change for each lever to move next. Pure, over a DriftService and what its operator tells.

The rules themselves are those of `drift_operator.levers`; here they are said with the service's own figures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from drift_cli import verdicts
from drift_cli.looking import OperatorSeen
from drift_cli.spelling import number, share
from drift_operator.driftservice import Autoscaling, DriftService
from drift_operator.levers import replicas, split, weights
from drift_operator.status import Status, TargetStatus

FEWER, MORE = replicas.LOW / replicas.TARGET, replicas.HIGH / replicas.TARGET
"""The band of the pressure as it is told, where 1 is its middle."""


@dataclass(frozen=True, slots=True)
class Prospect:
    lever: str
    text: str


def prospects(service: DriftService, seen: OperatorSeen | None) -> Iterator[Prospect]:
    """One for each lever, the quickest first. `seen`: of the operator, where it was asked."""
    if service.spec.paused:
        for lever in ("split", "weight", "replicas"):
            yield Prospect(lever, "nothing: spec.paused is true")
        return
    yield Prospect("split", _split(service))
    yield Prospect("weight", _weight(service))
    yield Prospect("replicas", _replicas(service, seen))


def _split(service: DriftService) -> str:
    converged = verdicts.condition(service, "SplitConverged")
    if converged is not None and converged.reason in ("ModeDoesNotSplit", "DeviceCannotBeSplit"):
        return converged.message
    slo, status = service.spec.slo, service.status or Status()
    kept = status.slo
    ttft, tbt = (kept.ttft, kept.tbt) if kept else (None, None)
    burns = [_over(part, target) for part, target in ((ttft, slo.ttft.attainment), (tbt, slo.tbt.attainment))]
    if burns == [False, True]:
        now = "tokens are late and first tokens are not: decode gets more SMs next"
    elif burns == [True, False]:
        now = "first tokens are late and further tokens are not: prefill gets more SMs next"
    elif burns == [True, True]:
        now = "both halves are missed: no split helps, so the bounds stay"
    else:
        now = (
            f"neither half is missed: bounds that were narrowed widen again after {split.RELAX_S:g} s of that"
        )
    return f"{now}; it moves when only one half is missed more often than promised"


def _weight(service: DriftService) -> str:
    nodes = (service.status or Status()).nodes or []
    told = sorted({node.weight for node in nodes if node.weight is not None and not node.draining})
    if len(told) < 2:
        return f"a node whose headroom falls by {share(weights.ALIKE)} below the largest gets fewer requests"
    return (
        f"weights are {number(told[0])} to {number(told[-1])}; they become alike as the nodes' headroom does"
    )


def _replicas(service: DriftService, seen: OperatorSeen | None) -> str:
    scaling = service.spec.autoscaling
    if scaling is None:
        return f"nothing: spec.replicas says {service.spec.wanted_replicas}, and spec.autoscaling is not set"
    if service.metadata.namespace is None and scaling.mode != "Operator":
        return f"nothing: {scaling.mode} scales on a cluster only, and this is a run on this machine"
    metrics, limited = (verdicts.condition(service, kind) for kind in ("MetricsAvailable", "ScalingLimited"))
    if metrics is not None and metrics.status == "False":
        return f"nothing before reports are back: {metrics.message}"
    if limited is not None and limited.status == "True":
        return limited.message
    return "; ".join(_band(service, scaling, seen))


def _band(service: DriftService, scaling: Autoscaling, seen: OperatorSeen | None) -> Iterator[str]:
    if seen is not None and seen.pressure is not None:
        yield f"pressure is {seen.pressure:.2f}"
    elif seen is not None:
        yield f"pressure is unknown ({seen.unknown or 'too few requests'}), so nothing moves"
    most = f"maxReplicas {scaling.max_replicas}"
    if scaling.mode != "Operator":
        yield f"{scaling.mode} decides, and aims at pressure 1"
    else:
        yield f"more nodes above {MORE:.2f}, up to {most}"
        down = scaling.stabilization.down
        yield (
            f"one fewer when the rest would stay below {FEWER:.2f} for {down}, down to minReplicas "
            f"{scaling.min_replicas}"
        )
    feasible = verdicts.condition(service, "SLOFeasible")
    if feasible is not None and feasible.status == "False":
        yield f"never for requests that no node can serve in time: {feasible.message}"
    if scaling.advisory:
        yield "advice only: spec.autoscaling.advisory is true"


def _over(part: TargetStatus | None, target: float) -> bool:
    return part is not None and part.attainment is not None and part.attainment < target
