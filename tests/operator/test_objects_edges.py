"""What stands around the pods: Services, Ingress, NetworkPolicies, autoscalers, monitoring."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import generate_latest

import router_pictures
from drift_engine import wire
from drift_engine.api.metrics import Metrics
from drift_engine.options import SloOptions
from drift_operator.objects import kinds
from drift_router import metrics as router_metrics
from drift_router.counters import Counters
from drift_router.options import Limits
from service_objects import built, container, kinds_of, one, without

KEDA = {"maxReplicas": 4, "mode": "KEDA", "stabilization": {"up": "30s", "down": "5m"}}
HPA = KEDA | {"mode": "HPA"}


def ports_of(component: str) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in container(component)["ports"]}


def test_clients_reach_routers_and_routers_find_nodes() -> None:
    clients = one("Service", "demo", expose={"service": {"type": "NodePort", "port": 8000}})["spec"]
    assert clients["type"] == "NodePort"
    assert clients["selector"] == one("Deployment", "demo-router")["spec"]["selector"]["matchLabels"]
    assert clients["ports"] == [{"name": "http", "port": 8000, "targetPort": ports_of("router")["http"]}]
    nodes = one("Service", "demo-nodes")["spec"]
    assert nodes["clusterIP"] == "None"
    assert nodes["selector"] == one("Deployment", "demo-node")["spec"]["selector"]["matchLabels"]
    assert {port["name"]: port["targetPort"] for port in nodes["ports"]} == ports_of("node")


def test_an_ingress_leads_to_the_clients_service_and_streams() -> None:
    ingress = {"host": "demo.example", "className": "nginx", "tlsSecretName": "tls"}
    made = one("Ingress", "demo", expose={"ingress": ingress})
    assert made["spec"] == {
        "ingressClassName": "nginx",
        "tls": [{"hosts": ["demo.example"], "secretName": "tls"}],
        "rules": [
            {
                "host": "demo.example",
                "http": {
                    "paths": [
                        {
                            "path": "/",
                            "pathType": "Prefix",
                            "backend": {"service": {"name": "demo", "port": {"name": "http"}}},
                        }
                    ]
                },
            }
        ],
    }
    said = made["metadata"]["annotations"]
    assert said["nginx.ingress.kubernetes.io/proxy-buffering"] == "off"
    assert int(said["nginx.ingress.kubernetes.io/proxy-body-size"]) == Limits().body_bytes


def test_the_users_annotations_win() -> None:
    own = {"nginx.ingress.kubernetes.io/proxy-read-timeout": "60", "a": "b"}
    made = one("Ingress", "demo", expose={"ingress": {"host": "demo.example", "annotations": own}})
    assert own.items() <= made["metadata"]["annotations"].items()


def reach(policy: dict[str, Any]) -> set[tuple[str, int]]:
    """(who, port) that get in."""
    found = set()
    for rule in policy["spec"]["ingress"]:
        for peer in rule.get("from", [None]):
            labels = peer["podSelector"]["matchLabels"] if peer else {}
            who = labels.get("app.kubernetes.io/component") or labels.get("app.kubernetes.io/name", "anybody")
            found |= {(who, port["port"]) for port in rule["ports"]}
    return found


def test_nodes_are_for_their_routers_the_operator_and_prometheus() -> None:
    policy = one("NetworkPolicy", "demo-node")
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert reach(policy) == {
        ("router", 8000),
        ("router", 8001),
        ("drift-operator", 8001),
        ("prometheus", 8000),
    }


def test_routers_are_for_everybody_and_their_control_is_not() -> None:
    assert reach(one("NetworkPolicy", "demo-router")) == {
        ("anybody", 8080),
        ("drift-operator", 8081),
        ("prometheus", 8081),
    }


def test_the_operator_is_let_in_from_its_own_namespace_only() -> None:
    for component in ("node", "router"):
        for rule in one("NetworkPolicy", f"demo-{component}")["spec"]["ingress"]:
            for peer in rule.get("from", []):
                if peer["podSelector"]["matchLabels"].get("app.kubernetes.io/name") == "drift-operator":
                    assert peer["namespaceSelector"] == {
                        "matchLabels": {"kubernetes.io/metadata.name": "drift-system"}
                    }


def ports_out(component: str = "node", **spec: Any) -> set[int]:
    rules = one("NetworkPolicy", f"demo-{component}", **spec)["spec"]["egress"]
    return {port["port"] for rule in rules for port in rule["ports"]}


def test_only_a_node_that_downloads_gets_out() -> None:
    assert ports_out(model={"uri": "hf://a/b"}) == {53, 443}
    assert ports_out() == {53}


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [("http://collector.monitoring:4318", 4318), ("https://spans.example/in", 443), ("http://collector", 80)],
)
def test_spans_get_out_to_their_collector_s_port(endpoint: str, port: int) -> None:
    observability = {"tracing": {"endpoint": endpoint}}
    assert ports_out(observability=observability) == {53, port}
    without = ports_out("router")
    assert ports_out("router", observability=observability) == without | {port}


def test_an_hpa_scales_the_service_by_its_pressure() -> None:
    spec = one("HorizontalPodAutoscaler", "demo", autoscaling=HPA)["spec"]
    assert spec["scaleTargetRef"] == {
        "apiVersion": "drift.ai/v1alpha1",
        "kind": "DriftService",
        "name": "demo",
    }
    assert (spec["minReplicas"], spec["maxReplicas"]) == (1, 4)
    (metric,) = spec["metrics"]
    assert metric["external"] == {
        "metric": {"name": "drift_slo_pressure", "selector": {"matchLabels": {"service": "demo"}}},
        "target": {"type": "Value", "value": "1"},
    }
    windows = {way: spec["behavior"][way]["stabilizationWindowSeconds"] for way in ("scaleUp", "scaleDown")}
    assert windows == {"scaleUp": 30, "scaleDown": 300}


def test_keda_asks_the_operator() -> None:
    spec = one("ScaledObject", "demo", autoscaling=KEDA)["spec"]
    (trigger,) = spec["triggers"]
    assert trigger["metricType"] == "Value"
    assert trigger["metadata"] == {
        "url": "http://drift-operator.drift-system.svc:8080/v1/services/team/demo/pressure",
        "valueLocation": "pressure",
        "targetValue": "1",
    }


@pytest.mark.parametrize("frozen", [{"paused": True}, {"autoscaling": {"advisory": True}}])
def test_a_frozen_service_is_not_moved_from_outside(frozen: dict[str, Any]) -> None:
    advisory = frozen.get("autoscaling", {})
    rest = {field: value for field, value in frozen.items() if field != "autoscaling"}
    behavior = one("HorizontalPodAutoscaler", "demo", autoscaling=HPA | advisory, **rest)["spec"]["behavior"]
    assert {rules["selectPolicy"] for rules in behavior.values()} == {"Disabled"}
    scaled = one("ScaledObject", "demo", autoscaling=KEDA | advisory, **rest)
    assert scaled["metadata"]["annotations"] == {"autoscaling.keda.sh/paused": "true"}


def test_what_a_cluster_does_not_know_is_not_made() -> None:
    facts = without(*kinds.OPTIONAL)
    for autoscaling in (HPA, KEDA):
        found = built(facts=facts, autoscaling=autoscaling, observability={"podMonitor": "Enabled"})
        assert not kinds_of(found) & {kind.kind for kind in kinds.OPTIONAL}


@pytest.mark.parametrize("mode", ["Operator", "External"])
def test_other_modes_make_no_autoscaler(mode: str) -> None:
    found = kinds_of(built(autoscaling={"maxReplicas": 4, "mode": mode}))
    assert not found & {"HorizontalPodAutoscaler", "ScaledObject"}


def test_pod_monitors_read_ports_that_there_are() -> None:
    for component in ("node", "router"):
        made = one("PodMonitor", f"demo-{component}", observability={"podMonitorLabels": {"release": "p"}})
        assert made["metadata"]["labels"]["release"] == "p"
        (endpoint,) = made["spec"]["podMetricsEndpoints"]
        assert endpoint["port"] in ports_of(component)
        assert made["spec"]["selector"] == one("Deployment", f"demo-{component}")["spec"]["selector"]


def test_monitoring_can_be_turned_off() -> None:
    found = kinds_of(built(observability={"podMonitor": "Disabled"}))
    assert not found & {"PodMonitor", "PrometheusRule"}


def dashboards() -> dict[str, Any]:
    made = one("ConfigMap", "demo-dashboards", observability={"dashboards": True})
    assert made["metadata"]["labels"]["grafana_dashboard"] == "1"
    return {name: json.loads(text) for name, text in made["data"].items()}


def test_dashboards_are_told_apart_and_fit_grafanas_limits() -> None:
    found = dashboards()
    assert set(found) == {"drift-team-demo-service.json", "drift-team-demo-nodes.json"}
    identities = {dashboard["uid"] for dashboard in found.values()}
    assert len(identities) == 2
    assert all(re.fullmatch(r"[-_a-zA-Z0-9]{1,40}", uid) for uid in identities)


def test_panels_do_not_overlap() -> None:
    for dashboard in dashboards().values():
        places = [tuple(panel["gridPos"].values()) for panel in dashboard["panels"]]
        assert len(set(places)) == len(places)
        assert all(x + width <= 24 for x, _, width, _ in places)


def queries() -> Iterator[str]:
    for dashboard in dashboards().values():
        for panel in dashboard["panels"]:
            yield from (target["expr"] for target in panel["targets"])
    (group,) = one("PrometheusRule", "demo")["spec"]["groups"]
    yield from (rule["expr"] for rule in group["rules"])


def node_metrics() -> Metrics:
    """Of a node that has done one step."""
    made = Metrics("small", SloOptions())
    made.step(
        wire.Stats(
            time_s=1.0,
            running=1,
            waiting=0,
            queued_tokens=0,
            kv_pages_used=8,
            kv_pages_held=4,
            kv_pages_total=1024,
            split=wire.Split(decode_sms=16, prefill_sms=116),
            activity_s_total={wire.Activity.DECODE: 1.0},
            prediction_errors={"decode": 0.01},
        )
    )
    return made


def exported() -> dict[str, set[str]]:
    """Sample -> its labels, of everything that a node and a router show."""
    nodes = [router_pictures.status_of("a")]
    counters = Counters.fresh(ttft_s=0.4, tbt_s=0.08)
    counters.requests[200] = 1
    text = router_metrics.render(router_pictures.picture_of(counters, nodes)).decode()
    text += generate_latest(node_metrics().registry).decode()
    found = {"up": {"endpoint"}}  # Prometheus's own, of every pod
    for line in text.splitlines():
        if sample := re.match(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? ", line):
            found.setdefault(sample[1], set()).update(re.findall(r'(\w+)="', sample[2] or ""))
    return found


def test_every_query_is_of_series_that_exist() -> None:
    found = exported()
    for query in queries():
        for name, matchers in re.findall(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}", query):
            assert name in found, query
            labels = set(re.findall(r"(\w+)=", matchers))
            assert labels <= found[name] | {"namespace", "service"}, query
            assert {'namespace="team"', 'service="demo"'} <= set(matchers.split(",")), query


def test_burn_rates_leave_room_for_any_attainment() -> None:
    for attainment in (0.5, 0.9, 0.99, 0.9999):
        (group,) = one("PrometheusRule", "demo", slo={"ttft": {"attainment": attainment}})["spec"]["groups"]
        thresholds = [
            float(limit)
            for rule in group["rules"]
            if rule["alert"].startswith("DriftTtft")
            for limit in re.findall(r"> ([\d.e-]+)\)", rule["expr"])
        ]
        assert len(thresholds) == 4
        assert all(1 - attainment < limit < 1 for limit in thresholds)
