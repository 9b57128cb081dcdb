"""Alerts of a service, as a PrometheusRule: whether its promise is being broken, and what usually breaks it.

A promise of 99 % leaves a budget of 1 % of requests that may be late. The burn rate is how many times faster than
allowed it is used up; a long window says that it matters, a short one that it still goes on (the multi-window alerts
of the Site Reliability Workbook, chapter 5).
"""

from __future__ import annotations

from dataclasses import dataclass

from drift_operator.driftservice import DriftService
from drift_operator.objects import kinds, metadata, monitoring, names
from drift_operator.objects.facts import Facts
from drift_operator.objects.metadata import Manifest

MOST_BURNT = 0.9
"""Share of late requests that any burn-rate alert fires at: a budget of 10 % can't burn 14.4 times too fast."""

LATE_DECODE = 0.05
"""Share of decode passes beside a prefill that may be slower than their predicted bound, a 95th percentile."""


@dataclass(frozen=True)
class Burn:
    word: str
    rate: float
    long: str
    short: str
    severity: str


BURNS = (
    # 2 % of a month's budget in an hour, 5 % in six.
    Burn("Fast", 14.4, "1h", "5m", "critical"),
    Burn("Slow", 6.0, "6h", "30m", "warning"),
)


def build(service: DriftService, facts: Facts) -> list[Manifest]:
    if not monitoring.asked(service, facts) or str(kinds.RULE) not in facts.kinds:
        return []
    made = metadata.begun(
        kinds.RULE,
        names.client_service(service.metadata.name),
        service,
        facts,
        labels=service.spec.observability.pod_monitor_labels,
    )
    group = f"drift-{metadata.namespace(service)}-{service.metadata.name}"
    return [made | {"spec": {"groups": [{"name": group, "rules": [*_burns(service), *_causes(service)]}]}}]


def late_ratio(service: DriftService, slo: str, window: str) -> str:
    late = monitoring.series(service, "drift_router_slo_requests_total", slo=slo, met="false")
    every = monitoring.series(service, "drift_router_slo_requests_total", slo=slo)
    return f"sum(rate({late}[{window}])) / sum(rate({every}[{window}]))"


def _burns(service: DriftService) -> list[Manifest]:
    slo = service.spec.slo
    return [
        _rule(
            f"Drift{promise.capitalize()}BudgetBurns{burn.word}",
            " and ".join(
                f"({late_ratio(service, promise, window)} > {min(burn.rate * (1 - attainment), MOST_BURNT):.6g})"
                for window in (burn.long, burn.short)
            ),
            "2m",
            burn.severity,
            service,
            f"{promise.upper()} of {service.metadata.name} is missed too often",
            f"{{{{ $value | humanizePercentage }}}} of its requests missed the {promise.upper()} target of "
            f"{target_ms} ms over {burn.long}; {attainment:.6g} of them are promised to meet it.",
        )
        for promise, attainment, target_ms in (
            ("ttft", slo.ttft.attainment, slo.ttft.target_ms),
            ("tbt", slo.tbt.attainment, slo.tbt.target_ms),
        )
        for burn in BURNS
    ]


def _causes(service: DriftService) -> list[Manifest]:
    name = service.metadata.name
    eligible = monitoring.series(service, "drift_router_node_eligible")
    draining = monitoring.series(service, "drift_router_node_draining")
    late = monitoring.series(service, "drift_late_decode_ratio")
    refused = monitoring.series(service, "drift_router_rejected_total")
    routers = monitoring.series(service, "up", endpoint=monitoring.PORTS[names.ROUTER])
    return [
        _rule(
            "DriftRoutersDown",
            f"absent({routers} == 1)",
            "2m",
            "critical",
            service,
            f"{name} has no router",
            "No router has told its metrics for 2 minutes: requests are not answered, or nobody can tell.",
        ),
        _rule(
            "DriftNodeDown",
            f"max by (namespace, service, node) ({eligible} + {draining}) == 0",
            "5m",
            "warning",
            service,
            f"A node of {name} gets no requests",
            "No router has sent requests to the node {{ $labels.node }} for 5 minutes.",
        ),
        _rule(
            "DriftSplitNotConverged",
            f"{late} > {LATE_DECODE}",
            "10m",
            "warning",
            service,
            f"A node of {name} does not find its split",
            "{{ $value | humanizePercentage }} of the decode passes beside a prefill on {{ $labels.pod }} take "
            "longer than their predicted bound.",
        ),
        _rule(
            "DriftRequestsRefused",
            f"sum by (namespace, service) (rate({refused}[5m])) > 0",
            "15m",
            "warning",
            service,
            f"{name} refuses requests",
            "Its routers have refused {{ $value | humanize }} requests a second for 15 minutes.",
        ),
    ]


def _rule(
    alert: str, expression: str, lasting: str, severity: str, service: DriftService, summary: str, text: str
) -> Manifest:
    labels = {
        "severity": severity,
        "namespace": metadata.namespace(service),
        "service": service.metadata.name,
    }
    return {
        "alert": alert,
        "expr": expression,
        "for": lasting,
        "labels": labels,
        "annotations": {"summary": summary, "description": text},
    }
