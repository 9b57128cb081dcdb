"""From a DriftService to a node process: what is passed on, and what a single machine refuses."""

from __future__ import annotations

import hashlib
import sys
import typing
from pathlib import Path
from typing import Any

import pytest

import documents
from drift_engine import options, wire
from drift_engine.options import TOKEN_VARIABLE, Share
from drift_engine.tracing.options import TracingOptions
from drift_operator import arguments, manifests, processes
from drift_operator.driftservice import DriftService, Routing
from drift_operator.errors import LocalError, ManifestError
from drift_operator.local import planning
from drift_router.options import Promise, RouterOptions
from drift_router.snapshots import Policy

TOKEN = "control-secret"


def plan(service: DriftService, environ: dict[str, str] | None = None, **asked: Any) -> planning.Plan:
    return planning.plan(
        service,
        host="127.0.0.1",
        port=8000,
        spare=range(9000, 9000 + planning.spare_ports(service)),
        control_token=TOKEN,
        environ=environ or {},
        **{"log_level": None, **asked},
    )


def planned(environ: dict[str, str] | None = None, **spec: Any) -> planning.LocalNode:
    """The only node."""
    found = plan(manifests.parse(documents.minimal(**spec)), environ)
    assert found.router is None
    (node,) = found.nodes
    return node


def routed(
    environ: dict[str, str] | None = None, timeline: Path | None = None, **spec: Any
) -> tuple[list[options.NodeOptions], RouterOptions]:
    """Three nodes, and the router before them."""
    found = plan(manifests.parse(documents.minimal(replicas=3, **spec)), environ, timeline=timeline)
    assert found.router is not None
    assert all(dict(node.variables) == {TOKEN_VARIABLE: TOKEN} for node in found.nodes)
    assert dict(found.router.variables) == {TOKEN_VARIABLE: TOKEN}
    assert TOKEN not in " ".join([*found.router.argv, *(word for node in found.nodes for word in node.argv)])
    return [node.options for node in found.nodes], found.router.options


def refusals(environ: dict[str, str] | None = None, **spec: Any) -> list[str]:
    with pytest.raises(LocalError) as caught:
        planned(environ, **spec)
    return str(caught.value).splitlines()


def test_promise_reaches_the_node() -> None:
    node = planned(
        model={"uri": "hf://a/b", "name": "c", "revision": "v1"},
        slo={"ttft": {"targetMs": 300, "perTokenMs": 0.5}, "tbt": {"targetMs": 20}},
        routing={"overload": {"maxQueuePerNode": 7}},
        engine={"device": "cpu", "env": [{"name": "A", "value": "1"}, {"name": "B"}]},
        rollout={"drainTimeout": "10s"},
    )
    asked = node.options
    assert (asked.model, asked.served_model_name, asked.revision) == ("hf://a/b", "c", "v1")
    assert asked.slo == options.SloOptions(ttft_ms=300, ttft_per_token_ms=0.5, tbt_ms=20)
    assert (asked.max_waiting, asked.device, asked.drain_timeout_s) == (7, "cpu", 10)
    assert node.variables == {"A": "1", "B": "", TOKEN_VARIABLE: TOKEN}


def test_default_document_gives_the_node_its_defaults() -> None:
    found = plan(manifests.default())
    (node,) = found.nodes
    assert node.options == options.NodeOptions(
        model="embedded://drift-tiny",
        served_model_name="drift-tiny",
        node="drift-tiny-0",
        control_port=9001,
    )
    assert (found.door_url, found.admin_url) == ("http://127.0.0.1:9000", "http://127.0.0.1:9001")


def test_command_line_carries_the_options() -> None:
    node = planned()
    assert node.argv[:3] == (sys.executable, "-m", "drift_engine.node")
    assert options.parse(node.argv[-1]) == node.options


@pytest.mark.parametrize("mode", wire.Mode)
def test_modes_that_are_served(mode: wire.Mode) -> None:
    assert planned(multiplexing={"mode": mode.value}).options.mode is mode


@pytest.mark.parametrize("slack", wire.Slack)
def test_slack_reaches_the_node(slack: wire.Slack) -> None:
    assert planned(multiplexing={"slack": slack.value}).options.slack is slack


def test_another_way_to_share_leaves_the_rest_alone() -> None:
    service = manifests.parse(documents.minimal(multiplexing={"mode": "mux", "minDwell": "3s"}))
    assert planning.with_sharing(service, mode=None, slack=None) == service
    asked = planning.with_sharing(service, mode="muxwise", slack="chain").spec.multiplexing
    assert (asked.mode, asked.slack, asked.min_dwell) == ("muxwise", "chain", "3s")
    with pytest.raises(ManifestError, match=r"spec.multiplexing.mode: .*muxwize.* did you mean muxwise"):
        planning.with_sharing(service, mode="muxwize", slack=None)


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ({"replicas": 17}, "spec.replicas: 17 is above the maximum 16 of a local run"),
        (
            {"autoscaling": {"minReplicas": 30, "maxReplicas": 40}},
            "spec.autoscaling.minReplicas: 30 is above the maximum 16 of a local run",
        ),
        ({"replicas": 0}, "spec.replicas: 0 leaves nothing to start; a local run takes 1 to 16"),
        (
            {"model": {"uri": "s3://bucket/x"}},
            "spec.model.uri: s3:// is mounted or fetched by a cluster; a local run takes embedded://, file://, hf://",
        ),
        (
            {"engine": {"tensorParallel": 2}},
            "spec.engine.tensorParallel: 2 is above the maximum 1 of this version",
        ),
        (
            {"auth": {"apiKeysSecretRef": {"name": "keys"}}},
            "spec.auth.apiKeysSecretRef: a Secret can't be read without a cluster; "
            "put the keys into the environment variable DRIFT_API_KEYS",
        ),
        (
            {"engine": {"env": [{"name": "T", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}},
            "spec.engine.env[0].valueFrom: can't be read without a cluster; "
            "set T in the environment of this command",
        ),
    ],
)
def test_what_only_a_cluster_has_is_refused(spec: dict[str, Any], line: str) -> None:
    assert refusals(**spec) == [line]


def test_a_mode_of_later_versions_is_refused() -> None:
    (line,) = refusals(multiplexing={"mode": "disaggregated"})
    assert line.startswith(
        "spec.multiplexing.mode: disaggregated is not served by this version's engine; it takes auto, "
    )


def test_all_refusals_come_at_once() -> None:
    assert len(refusals(replicas=20, engine={"tensorParallel": 2, "args": ["--mode=mux"]})) == 3


def test_api_keys_come_from_the_environment_as_hashes() -> None:
    auth = {"apiKeysSecretRef": {"name": "keys"}}
    node = planned({planning.API_KEYS_VARIABLE: "one, two"}, auth=auth)
    assert node.options.api_key_sha256 == tuple(hashlib.sha256(key).hexdigest() for key in (b"one", b"two"))
    assert planned({planning.API_KEYS_VARIABLE: "one"}).options.api_key_sha256 == ()


def test_variable_of_a_secret_is_inherited_or_optional() -> None:
    reference = {"name": "s", "key": "k"}
    required = {"env": [{"name": "T", "valueFrom": {"secretKeyRef": reference}}]}
    optional = {"env": [{"name": "T", "valueFrom": {"configMapKeyRef": {**reference, "optional": True}}}]}
    assert "T" not in planned({"T": "x"}, engine=required).variables
    assert "T" not in planned(engine=optional).variables


def test_arguments_are_node_options() -> None:
    engine = {"args": ["--max-running=8", "--prefix-cache=false", "--dtype=bfloat16", "--kv-bytes=1048576"]}
    asked = planned(engine=engine).options
    assert (asked.max_running, asked.prefix_cache, asked.dtype, asked.kv_bytes) == (
        8,
        False,
        "bfloat16",
        1048576,
    )


@pytest.mark.parametrize(
    ("argument", "phrase"),
    [
        ("--max-running=0", "--max-running=0: expected int >= 1"),
        ("--max-running=many", "--max-running=many: expected int, got str"),
        ("--max-runing=8", "unknown option --max-runing; did you mean --max-running?"),
        ("--tbt=8", "unknown option --tbt; known: --batch-table, "),
        ("--mode=fused", "--mode is what spec.multiplexing.mode says"),
        ("--slo=1", "--slo is what spec.slo says"),
        ("--port=1", "--port is set by Drift itself"),
    ],
)
def test_arguments_that_are_none(argument: str, phrase: str) -> None:
    (line,) = refusals(engine={"args": [argument]})
    assert line.startswith(f"spec.engine.args[0]: {phrase}")


def test_every_node_option_is_set_somewhere_or_free() -> None:
    fields = set(options.NodeOptions.__struct_fields__)
    assert set(arguments.SETTLED_BY_FIELD) <= fields
    assert fields >= arguments.SETTLED_BY_DRIFT


def test_spans_go_where_the_document_says() -> None:
    nodes, router = routed(observability={"tracing": {"endpoint": "http://a:4318", "sampling": 0.5}})
    assert {node.tracing for node in nodes} == {TracingOptions("http://a:4318", 0.5, "demo-node")}
    assert router.tracing == TracingOptions("http://a:4318", 0.5, "demo-router")


def test_a_collector_of_the_command_line_takes_the_place_of_the_document_s() -> None:
    asked = {"tracing": {"endpoint": "http://a:4318", "sampling": 0.5}}
    service = manifests.parse(documents.minimal(observability=asked))
    assert planning.with_tracing(service, None) is service
    (node,) = plan(planning.with_tracing(service, "http://b:4318")).nodes
    assert node.options.tracing == TracingOptions("http://b:4318", 0.5, "demo-node")


def test_a_collector_that_is_no_address_is_named_by_its_field() -> None:
    with pytest.raises(ManifestError) as raised:
        planning.with_tracing(manifests.default(), "localhost:4317")
    assert "spec.observability.tracing.endpoint" in str(raised.value)


def test_log_level_of_the_command_line_wins() -> None:
    service = manifests.parse(documents.minimal(engine={"args": ["--log-level=error"]}))
    (node,) = plan(service, log_level="debug").nodes
    assert node.options.log_level == "debug"


def test_drain_is_cut_to_what_a_person_waits() -> None:
    assert planned(rollout={"drainTimeout": "1h"}).options.drain_timeout_s == planning.MAX_DRAIN_S


def test_other_model_keeps_the_promise(tmp_path: Path) -> None:
    folder = tmp_path / "my model (1)"
    folder.mkdir()
    service = manifests.parse(
        documents.minimal(slo={"tbt": {"targetMs": 20}}, model={"uri": "hf://a/b", "revision": "r"})
    )
    other = planning.with_model(service, str(folder))
    assert other.spec.model.uri == f"file://{folder}"
    assert other.served_name == "my-model-1"
    assert other.spec.model.revision is None
    assert other.spec.slo == service.spec.slo
    assert planning.with_model(service, "hf://Qwen/Qwen3-8B").served_name == "Qwen/Qwen3-8B"


def test_other_model_that_is_none(tmp_path: Path) -> None:
    service = manifests.default()
    with pytest.raises(LocalError, match="is neither a folder nor a URI"):
        planning.with_model(service, str(tmp_path / "absent"))
    with pytest.raises(ManifestError, match=r"spec\.model\.uri"):
        planning.with_model(service, "ftp://x")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"HOME": "/home/u"}, "/home/u/.cache/drift/latency/a-b.json"),
        ({"HOME": "/home/u", "XDG_CACHE_HOME": "/cache"}, "/cache/drift/latency/a-b.json"),
        ({}, None),
    ],
)
def test_what_was_learned_of_speed_is_kept_in_the_users_cache(
    environ: dict[str, str], expected: str | None
) -> None:
    node = planned(environ, model={"uri": "hf://a/b", "name": "a/b"})
    assert node.options.latency_file == expected


def test_several_nodes_stand_behind_a_router() -> None:
    nodes, router = routed(slo={"ttft": {"targetMs": 300, "perTokenMs": 0.5}, "tbt": {"targetMs": 20}})
    assert [node.node for node in nodes] == ["demo-0", "demo-1", "demo-2"]
    assert {node.host for node in nodes} == {"127.0.0.1"}
    ports = [port for node in nodes for port in (node.port, node.control_port)]
    assert len({*ports, router.admin_port, router.port}) == 8
    assert router.nodes == tuple(
        f"{node.node}=http://127.0.0.1:{node.port},http://127.0.0.1:{node.control_port}" for node in nodes
    )
    assert (router.host, router.port) == ("127.0.0.1", 8000)
    assert router.promise == Promise(ttft_ms=300, ttft_per_token_ms=0.5, tbt_ms=20)
    assert all(node.slo == nodes[0].slo for node in nodes)


def test_the_least_number_of_nodes_is_what_starts() -> None:
    service = manifests.parse(documents.minimal(autoscaling={"minReplicas": 2, "maxReplicas": 9}))
    found = plan(service)
    assert len(found.nodes) == 2
    assert found.router is not None
    assert found.admin_url == f"http://127.0.0.1:{found.router.options.admin_port}"


def test_a_run_that_may_grow_has_a_router_from_the_start() -> None:
    found = plan(manifests.parse(documents.minimal(autoscaling={"minReplicas": 1, "maxReplicas": 3})))
    assert found.router is not None
    (node,) = found.nodes
    assert node.options.share == Share(0, 3)
    later = found.mould.node(2, "127.0.0.1", 7000, 7001)
    assert (later.options.node, later.options.share) == ("demo-2", Share(2, 3))
    assert (later.url, later.control_url) == ("http://127.0.0.1:7000", "http://127.0.0.1:7001")


@pytest.mark.parametrize(
    ("spec", "most"),
    [
        ({}, 1),
        ({"replicas": 3}, 3),
        ({"autoscaling": {"maxReplicas": 1}}, 1),
        ({"autoscaling": {"minReplicas": 2, "maxReplicas": 40}}, planning.MAX_NODES),
        ({"autoscaling": {"maxReplicas": 4, "advisory": True}}, 1),
        ({"autoscaling": {"maxReplicas": 4, "mode": "HPA"}, "replicas": 2}, 2),
        ({"autoscaling": {"maxReplicas": 4}, "paused": True}, 1),
    ],
)
def test_the_most_nodes_that_there_may_be(spec: dict[str, Any], most: int) -> None:
    assert planning.most_nodes(manifests.parse(documents.minimal(**spec))) == most


def test_what_is_otherwise_than_on_a_cluster_is_told() -> None:
    def remarks(**scaling: Any) -> list[str]:
        return [*planning.remarks(manifests.parse(documents.minimal(autoscaling=scaling)))]

    assert remarks(maxReplicas=4) == []
    assert remarks(maxReplicas=40) == [
        "spec.autoscaling.maxReplicas: 40 is cut to 16, the most of a local run"
    ]
    assert remarks(maxReplicas=4, mode="HPA") == [
        "spec.autoscaling.mode: HPA scales on a cluster only; the number of nodes stays 1"
    ]


def test_the_bound_of_a_local_run_is_kept_by_the_levers() -> None:
    service = manifests.parse(documents.minimal(autoscaling={"maxReplicas": 40}))
    scaling = planning.bounded(service).spec.autoscaling
    assert scaling is not None
    assert scaling.max_replicas == planning.MAX_NODES


def test_nodes_share_the_machine_and_nothing_else(tmp_path: Path) -> None:
    nodes, _ = routed({"HOME": "/home/u"}, tmp_path / "lanes.svg")
    assert [node.share for node in nodes] == [Share(0, 3), Share(1, 3), Share(2, 3)]
    assert [node.timeline_file for node in nodes] == [f"{tmp_path}/lanes-{place}.svg" for place in range(3)]
    alone = planned({"HOME": "/home/u"}).options
    assert len({node.latency_file for node in (*nodes, alone)}) == 4


def test_the_router_checks_keys_and_nodes_take_it_alone() -> None:
    auth = {"apiKeysSecretRef": {"name": "keys"}}
    nodes, router = routed({planning.API_KEYS_VARIABLE: "one"}, auth=auth)
    assert router.api_key_sha256 == (hashlib.sha256(b"one").hexdigest(),)
    assert {node.api_key_sha256 for node in nodes} == {(hashlib.sha256(TOKEN.encode()).hexdigest(),)}
    nodes, router = routed({planning.API_KEYS_VARIABLE: "one"})
    assert (router.api_key_sha256, nodes[0].api_key_sha256) == ((), ())


def test_routing_is_what_the_document_says() -> None:
    _, router = routed(
        routing={
            "policy": "LeastLoad",
            "sessionAffinity": {"header": "x-chat", "ttl": "5m"},
            "overload": {"maxWait": "7s"},
        },
        rollout={"drainTimeout": "10s"},
    )
    assert router.policy is Policy.LEAST_LOAD
    assert (router.session_header, router.session_ttl_s) == ("x-chat", 300)
    assert (router.patience.queue_s, router.patience.drain_s) == (7, 10)
    assert router.queue
    _, plain = routed(routing={"overload": {"maxWait": "0s"}})
    assert (plain.session_header, plain.queue) == (None, 0)


def test_every_policy_of_the_resource_has_one_of_the_router() -> None:
    for name in typing.get_args(Routing.model_fields["policy"].annotation):
        assert routed(routing={"policy": name})[1].policy is processes.POLICIES[name]
