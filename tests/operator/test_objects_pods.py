"""The pods of nodes and routers: what they are told, what they may, how they start and stop."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from drift_engine import options as node_options
from drift_engine.options import TOKEN_VARIABLE, NodeOptions, SloOptions
from drift_engine.tracing.options import TracingOptions
from drift_operator import arguments
from drift_operator.containers import GPU
from drift_operator.objects import nodes, pods
from drift_router import options as router_options
from drift_router.options import Promise, RouterOptions
from drift_router.snapshots import Policy
from service_objects import FACTS, container, one, options_text, parsed, pod, promise_text, variables

COMPONENTS = pytest.mark.parametrize("component", ["node", "router"])


def node_told(**spec: Any) -> NodeOptions:
    references = {"POD_NAME": "demo-node-abc", "DRIFT_PROMISE": promise_text(**spec)}
    return node_options.parse(options_text(container("node", **spec), references))


def router_told(**spec: Any) -> RouterOptions:
    return router_options.parse(
        options_text(container("router", **spec), {"DRIFT_PROMISE": promise_text(**spec)})
    )


def test_a_node_is_told_the_promise_and_its_place() -> None:
    told = node_told(
        slo={"ttft": {"targetMs": 300, "perTokenMs": 0.5}, "tbt": {"targetMs": 20}},
        model={"uri": "hf://a/b", "name": "c", "revision": "v1"},
        multiplexing={"mode": "mux", "slack": "chain"},
        routing={"overload": {"maxQueuePerNode": 7}},
        rollout={"drainTimeout": "1h"},
        engine={"device": "cpu", "args": ["--max-running=8"]},
    )
    assert told == NodeOptions(
        model="hf://a/b",
        revision="v1",
        served_model_name="c",
        node="demo-node-abc",
        host="0.0.0.0",
        port=8000,
        control_host="0.0.0.0",
        control_port=8001,
        api_key_sha256=(FACTS.token_sha256,),
        device="cpu",
        mode=told.mode,
        slack=told.slack,
        max_running=8,
        max_waiting=7,
        slo=SloOptions(ttft_ms=300, ttft_per_token_ms=0.5, tbt_ms=20),
        latency_file="/cache/latency.json",
        drain_timeout_s=3600,
    )
    assert (told.mode, told.slack) == ("mux", "chain")


def test_a_router_is_told_the_promise_and_where_nodes_are() -> None:
    told = router_told(
        slo={"ttft": {"targetMs": 300}, "tbt": {"targetMs": 20}},
        routing={"policy": "LeastLoad", "sessionAffinity": {"header": "x-chat", "ttl": "5m"}},
    )
    assert told.promise == Promise(ttft_ms=300, tbt_ms=20)
    assert told.nodes_service == "team/demo-nodes"
    assert (told.host, told.port, told.admin_host, told.admin_port) == ("0.0.0.0", 8080, "0.0.0.0", 8081)
    assert (told.policy, told.session_header, told.session_ttl_s) == (Policy.LEAST_LOAD, "x-chat", 300)
    assert told.keys_dir is None


def test_pods_are_told_where_spans_go() -> None:
    observability = {"tracing": {"endpoint": "http://collector.monitoring:4318", "sampling": 0.25}}
    endpoint = "http://collector.monitoring:4318"
    assert node_told(observability=observability).tracing == TracingOptions(endpoint, 0.25, "demo-node")
    assert router_told(observability=observability).tracing == TracingOptions(endpoint, 0.25, "demo-router")
    assert node_told().tracing == router_told().tracing == TracingOptions()


def test_a_changed_promise_replaces_no_pod() -> None:
    for component in ("node", "router"):
        before = one("Deployment", f"demo-{component}")
        assert one("Deployment", f"demo-{component}", slo={"tbt": {"targetMs": 20}}) == before


def test_a_changed_token_replaces_every_pod() -> None:
    changed = dataclasses.replace(FACTS, token_sha256="77" * 32)
    for component in ("node", "router"):
        before = one("Deployment", f"demo-{component}")["spec"]["template"]
        after = one("Deployment", f"demo-{component}", facts=changed)["spec"]["template"]
        assert after != before


@hypothesis.given(st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=20))
def test_what_a_user_writes_is_never_taken_for_a_variable(text: str) -> None:
    engine = {"args": [f"--timeline-file=$(POD_NAME)$$({text}"]}
    if arguments.settings(parsed(engine=engine).spec.engine)[1] == []:
        assert node_told(engine=engine).timeline_file == f"$(POD_NAME)$$({text}"


@COMPONENTS
def test_the_token_comes_from_its_secret(component: str) -> None:
    assert variables(container(component))[TOKEN_VARIABLE] == {
        "secretKeyRef": {"name": "demo-control", "key": "token"}
    }


def test_the_users_variables_come_after_ours_and_win() -> None:
    reference = {"name": "hub", "key": "token"}
    env = [
        {"name": "HF_HOME", "value": "/models"},
        {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": reference}},
    ]
    made = container("node", engine={"env": env})
    found = variables(made)
    assert found["HF_HOME"] == "/models"
    assert found["HF_TOKEN"] == {"secretKeyRef": reference | {"optional": False}}
    assert len(found) == len(made["env"])


@COMPONENTS
def test_pods_are_restricted(component: str) -> None:
    made = pod(component)
    security = made["securityContext"]
    assert security["runAsNonRoot"]
    assert security["runAsUser"] == security["fsGroup"] == 65532
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert made["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }


def test_only_routers_have_a_token_for_the_api_server() -> None:
    assert pod("node")["automountServiceAccountToken"] is False
    assert pod("router")["automountServiceAccountToken"] is True
    for component in ("node", "router"):
        assert one("ServiceAccount", f"demo-{component}")["automountServiceAccountToken"] is False
        assert pod(component)["serviceAccountName"] == f"demo-{component}"


def test_routers_may_read_endpoint_slices_and_nothing_else() -> None:
    assert one("Role", "demo-router")["rules"] == [
        {
            "apiGroups": ["discovery.k8s.io"],
            "resources": ["endpointslices"],
            "verbs": ["get", "list", "watch"],
        }
    ]
    binding = one("RoleBinding", "demo-router")
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "demo-router", "namespace": "team"}]


@COMPONENTS
@pytest.mark.parametrize("drain", ["0s", "500ms", "5m"])
def test_a_pod_is_killed_only_after_its_drain(component: str, drain: str) -> None:
    made = pod(component, rollout={"drainTimeout": drain})
    leave_s = made["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain_s = node_told(rollout={"drainTimeout": drain}).drain_timeout_s
    assert router_told(rollout={"drainTimeout": drain}).patience.drain_s == drain_s
    assert made["terminationGracePeriodSeconds"] >= leave_s + drain_s + 10


def test_weights_may_take_hours_to_load() -> None:
    probe = container("node")["startupProbe"]
    assert probe["httpGet"] == {"path": "/readyz", "port": 8000}
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 2 * 3600
    assert one("Deployment", "demo-node")["spec"]["progressDeadlineSeconds"] > nodes.STARTUP_S


def test_a_router_starts_without_nodes_and_is_ready_with_them() -> None:
    made = container("router")
    assert made["startupProbe"]["httpGet"] == {"path": "/healthz", "port": 8081}
    assert made["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": 8081}
    assert made["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": 8081}


def test_replicas_are_left_to_whoever_else_writes_them() -> None:
    assert one("Deployment", "demo-node")["spec"]["replicas"] == FACTS.node_replicas
    others = dataclasses.replace(FACTS, node_replicas=None)
    assert "replicas" not in one("Deployment", "demo-node", facts=others)["spec"]
    assert one("Deployment", "demo-router")["spec"]["replicas"] == FACTS.router_replicas


def test_nodes_are_replaced_as_the_rollout_says() -> None:
    made = one("Deployment", "demo-node", rollout={"maxSurge": "25%", "maxUnavailable": 1})
    assert made["spec"]["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1},
    }


@pytest.mark.parametrize(
    ("engine", "resources"),
    [
        ({"device": "cpu"}, None),
        ({"device": "sim"}, None),
        ({"device": "auto"}, None),
        ({"device": "cuda"}, {"limits": {GPU: 1}}),
        (
            {"device": "cuda", "resources": {"limits": {"memory": "64Gi"}}},
            {"limits": {"memory": "64Gi", GPU: 1}},
        ),
        (
            {"device": "cuda", "resources": {"limits": {"nvidia.com/mig-3g.40gb": 1}}},
            {"limits": {"nvidia.com/mig-3g.40gb": 1}},
        ),
        (
            {"device": "auto", "resources": {"requests": {"cpu": "500m"}, "limits": {GPU: 1}}},
            {"requests": {"cpu": "500m"}, "limits": {GPU: 1}},
        ),
    ],
)
def test_a_node_gets_its_gpu_where_it_needs_one(
    engine: dict[str, Any], resources: dict[str, Any] | None
) -> None:
    assert container("node", engine=engine).get("resources") == resources


@pytest.mark.parametrize(
    ("uri", "told", "volume"),
    [
        ("embedded://drift-tiny", "embedded://drift-tiny", None),
        ("hf://a/b", "hf://a/b", None),
        (
            "pvc://models/llama/8b",
            "file:///model/llama/8b",
            {"persistentVolumeClaim": {"claimName": "models", "readOnly": True}},
        ),
        (
            "pvc://models",
            "file:///model",
            {"persistentVolumeClaim": {"claimName": "models", "readOnly": True}},
        ),
        (
            "pvc://models/a b",
            "file:///model/a%20b",
            {"persistentVolumeClaim": {"claimName": "models", "readOnly": True}},
        ),
        ("file:///data/8b", "file:///model", {"hostPath": {"path": "/data/8b", "type": "Directory"}}),
        (
            "oci://registry.example/llama:8b",
            "file:///model",
            {"image": {"reference": "registry.example/llama:8b", "pullPolicy": "IfNotPresent"}},
        ),
    ],
)
def test_a_model_is_where_its_node_looks(uri: str, told: str, volume: dict[str, Any] | None) -> None:
    model = {"uri": uri}
    assert node_told(model=model).model == told
    made = pod("node", model=model)
    volumes = {entry["name"]: entry for entry in made["volumes"]}
    mounts = {mount["name"]: mount for mount in made["containers"][0]["volumeMounts"]}
    if volume is None:
        assert "model" not in volumes
    else:
        assert volumes["model"] == {"name": "model", **volume}
        assert mounts["model"] == {"name": "model", "mountPath": "/model", "readOnly": True}
    assert set(mounts) == set(volumes)


def test_routers_watch_the_secret_of_api_keys() -> None:
    auth = {"apiKeysSecretRef": {"name": "keys-of-team"}}
    assert router_told(auth=auth).keys_dir == "/keys"
    made = pod("router", auth=auth)
    assert {"name": "keys", "secret": {"secretName": "keys-of-team"}} in made["volumes"]
    assert {"name": "keys", "mountPath": "/keys", "readOnly": True} in made["containers"][0]["volumeMounts"]


@COMPONENTS
def test_a_read_only_root_has_a_place_for_temporary_files(component: str) -> None:
    made = pod(component)
    assert {"name": "tmp", "emptyDir": {}} in made["volumes"]
    assert {"name": "tmp", "mountPath": "/tmp"} in made["containers"][0]["volumeMounts"]


def test_the_users_pod_is_laid_over_ours() -> None:
    template = {
        "metadata": {"labels": {"team": "x"}, "annotations": {"a": "b"}},
        "spec": {
            "nodeSelector": {"gpu": "h100"},
            "containers": [{"name": "side", "image": "side:1"}],
            "volumes": [{"name": "cache", "persistentVolumeClaim": {"claimName": "hub"}}],
        },
    }
    made = one("Deployment", "demo-node", engine={"podTemplate": template})["spec"]["template"]
    assert made["metadata"]["labels"]["team"] == "x"
    assert one("Deployment", "demo-node")["spec"]["selector"]["matchLabels"].items() <= (
        made["metadata"]["labels"].items()
    )
    assert made["spec"]["nodeSelector"] == {"gpu": "h100"}
    assert [container["name"] for container in made["spec"]["containers"]] == ["node", "side"]
    assert {"name": "cache", "persistentVolumeClaim": {"claimName": "hub"}} in made["spec"]["volumes"]


@COMPONENTS
def test_pods_are_spread_and_one_at_a_time_is_evicted(component: str) -> None:
    selector = one("Deployment", f"demo-{component}")["spec"]["selector"]
    # One over zones beside it would undo it where hosts have no zone.
    (constraint,) = pod(component)["topologySpreadConstraints"]
    assert constraint["topologyKey"] == "kubernetes.io/hostname"
    budget = one("PodDisruptionBudget", f"demo-{component}")["spec"]
    assert (budget["maxUnavailable"], budget["selector"]) == (1, selector)


def test_routers_rather_stand_in_zones_of_their_own() -> None:
    (term,) = pod("router")["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    selector = one("Deployment", "demo-router")["spec"]["selector"]
    assert term["podAffinityTerm"] == {
        "topologyKey": "topology.kubernetes.io/zone",
        "labelSelector": selector,
    }


def test_a_process_is_told_only_what_is_no_default() -> None:
    _, text = pods.told(NodeOptions(model="m"), NodeOptions(model=""), {})
    assert json.loads(text) == {"model": "m"}
