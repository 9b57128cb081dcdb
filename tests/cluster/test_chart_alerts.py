"""When each alert of the operator fires: Prometheus judges the chart's rules over made-up series, in virtual time."""

from __future__ import annotations

from pathlib import Path

import pytest

import helm
import prometheus

POD_MONITOR, PROMETHEUS_RULE = (
    "monitoring.coreos.com/v1/PodMonitor",
    "monitoring.coreos.com/v1/PrometheusRule",
)
SERVICE = 'namespace="team",service="demo"'

HEALTHY = {
    'up{job="drift-system/drift-operator"}': "1x100",
    f"drift_operator_reconcile_errors_total{{{SERVICE}}}": "3+0x100",
    f"drift_operator_metrics_age_seconds{{{SERVICE}}}": "1x100",
    "drift_operator_push_total": "0+60x100",
    "drift_operator_push_failures_total": "0+1x100",
}
CASES: dict[str, tuple[dict[str, str], set[str]]] = {
    "all is well": ({}, set()),
    "the operator is gone": ({'up{job="drift-system/drift-operator"}': "1x20 _x80"}, {"DriftOperatorDown"}),
    "it does not answer": ({'up{job="drift-system/drift-operator"}': "1x20 0x80"}, {"DriftOperatorDown"}),
    "passes fail": (
        {f"drift_operator_reconcile_errors_total{{{SERVICE}}}": "0+2x100"},
        {"DriftReconcileFails"},
    ),
    "nothing is heard of nodes": (
        {f"drift_operator_metrics_age_seconds{{{SERVICE}}}": "1x10 60+60x90"},
        {"DriftMetricsStale"},
    ),
    "nodes take no set-points": ({"drift_operator_push_failures_total": "0+20x100"}, {"DriftPushFails"}),
}


@pytest.fixture(scope="module")
def groups() -> prometheus.Rules:
    objects = helm.render({}, kinds=(POD_MONITOR, PROMETHEUS_RULE))
    found: prometheus.Rules = helm.find(objects, "PrometheusRule")["spec"]["groups"]
    return found


@pytest.mark.parametrize("case", CASES)
def test_an_alert_fires_for_what_it_is_for_and_for_nothing_else(
    groups: prometheus.Rules, case: str, tmp_path: Path
) -> None:
    changed, expected = CASES[case]
    prometheus.assert_firing(groups, HEALTHY | changed, expected, after="60m", folder=tmp_path)


def test_each_alert_has_its_case(groups: prometheus.Rules) -> None:
    alerts = {rule["alert"] for group in groups for rule in group["rules"]}
    assert alerts == set().union(*(expected for _, expected in CASES.values()))
