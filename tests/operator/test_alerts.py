"""When each alert of a service fires: Prometheus judges its rules over made-up series, in virtual time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

import prometheus
import service_objects

OWN = 'namespace="team",service="demo"'
LATE_20 = {"true": "0+48x400", "false": "0+12x400"}
LATE_8 = {"true": "0+55.2x400", "false": "0+4.8x400"}
LATE_UNTIL_MINUTE_300 = {"true": "0+30x300 9000+60x100", "false": "0+30x300 9000+0x100"}
NO_REQUESTS = {"true": "7+0x400", "false": "3+0x400"}


def node(name: str, *, router: int = 1, eligible: str, draining: str = "0x400") -> dict[str, str]:
    """As a router sees it."""
    labels = f'{OWN},node="{name}",pod="router-{router}"'
    return {
        f"drift_router_node_eligible{{{labels}}}": eligible,
        f"drift_router_node_draining{{{labels}}}": draining,
    }


HEALTHY = {
    f'up{{{OWN},endpoint="admin",pod="router-1"}}': "1x400",
    **node("a", eligible="1x400"),
    f'drift_late_decode_ratio{{{OWN},pod="node-a"}}': "0.03x400",
    f'drift_router_rejected_total{{{OWN},reason="queue-full"}}': "5x400",
    **{
        f'drift_router_slo_requests_total{{{OWN},slo="{slo}",met="{met}"}}': values
        for slo in ("ttft", "tbt")
        for met, values in {"true": "0+59.7x400", "false": "0+0.3x400"}.items()
    },
}


def requests(slo: str, kept: Mapping[str, str]) -> dict[str, str]:
    return {
        f'drift_router_slo_requests_total{{{OWN},slo="{slo}",met="{met}"}}': values
        for met, values in kept.items()
    }


CASES: dict[str, tuple[dict[str, str], set[str]]] = {
    "all is well": ({}, set()),
    "no requests": (requests("ttft", NO_REQUESTS) | requests("tbt", NO_REQUESTS), set()),
    "a fifth of first tokens is late": (
        requests("ttft", LATE_20),
        {"DriftTtftBudgetBurnsFast", "DriftTtftBudgetBurnsSlow"},
    ),
    "8 % of first tokens are late": (requests("ttft", LATE_8), {"DriftTtftBudgetBurnsSlow"}),
    "a fifth of tokens is late": (
        requests("tbt", LATE_20),
        {"DriftTbtBudgetBurnsFast", "DriftTbtBudgetBurnsSlow"},
    ),
    "what was late is not any more": (requests("ttft", LATE_UNTIL_MINUTE_300), set()),
    "no router sends to a node": (node("b", eligible="1x300 0x100"), {"DriftNodeDown"}),
    "no router sends to a node that finishes its work": (
        node("b", eligible="1x300 0x100", draining="0x300 1x100"),
        set(),
    ),
    "one of two routers sends to a node": (
        node("b", eligible="0x400") | node("b", router=2, eligible="1x400"),
        set(),
    ),
    "the last router is down": (
        {f'up{{{OWN},endpoint="admin",pod="router-1"}}': "1x300 0x100"},
        {"DriftRoutersDown"},
    ),
    "there are no routers": (
        {f'up{{{OWN},endpoint="admin",pod="router-1"}}': "1x300 stale"},
        {"DriftRoutersDown"},
    ),
    "one of two routers is down": ({f'up{{{OWN},endpoint="admin",pod="router-2"}}': "0x400"}, set()),
    "decode is slower than predicted": (
        {f'drift_late_decode_ratio{{{OWN},pod="node-a"}}': "0.2x400"},
        {"DriftSplitNotConverged"},
    ),
    "requests are refused": (
        {f'drift_router_rejected_total{{{OWN},reason="queue-full"}}': "0+6x400"},
        {"DriftRequestsRefused"},
    ),
    "another service is broken": (
        {
            name.replace("demo", "other"): values
            for name, values in (requests("ttft", LATE_20) | node("b", eligible="0x400")).items()
        },
        set(),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_alerts_fire_when_they_should(name: str, tmp_path: Path) -> None:
    series, expected = CASES[name]
    rules = service_objects.one("PrometheusRule", "demo")["spec"]["groups"]
    prometheus.assert_firing(rules, HEALTHY | series, expected, after="370m", folder=tmp_path)


def test_every_alert_is_seen_to_fire() -> None:
    (group,) = service_objects.one("PrometheusRule", "demo")["spec"]["groups"]
    assert {rule["alert"] for rule in group["rules"]} == set().union(*(fired for _, fired in CASES.values()))
