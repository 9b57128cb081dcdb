"""From a DriftService to a node process: what is passed on, and what a single machine refuses."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest

import documents
from drift_engine import options, wire
from drift_operator import local, manifests
from drift_operator.errors import LocalError, ManifestError


def planned(environ: dict[str, str] | None = None, **spec: Any) -> local.LocalNode:
    service = manifests.parse(documents.minimal(**spec))
    return local.plan(service, host="127.0.0.1", port=8000, log_level=None, environ=environ or {})


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
    assert node.variables == {"A": "1", "B": ""}


def test_default_document_gives_the_node_its_defaults() -> None:
    node = local.plan(manifests.default(), host="127.0.0.1", port=8000, log_level=None, environ={})
    assert node.options == options.NodeOptions(
        model="embedded://drift-tiny", served_model_name="drift-tiny", node="drift-tiny-0"
    )


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
    assert local.with_sharing(service, mode=None, slack=None) == service
    asked = local.with_sharing(service, mode="muxwise", slack="chain").spec.multiplexing
    assert (asked.mode, asked.slack, asked.min_dwell) == ("muxwise", "chain", "3s")
    with pytest.raises(ManifestError, match=r"spec.multiplexing.mode: .*muxwize.* did you mean muxwise"):
        local.with_sharing(service, mode="muxwize", slack=None)


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        (
            {"replicas": 2},
            "spec.replicas: 2 nodes need the router, which this version does not have yet; a local run takes 1",
        ),
        (
            {"autoscaling": {"minReplicas": 3, "maxReplicas": 4}},
            "spec.autoscaling.minReplicas: 3 nodes need the router, which this version does not have yet; "
            "a local run takes 1",
        ),
        ({"replicas": 0}, "spec.replicas: 0 leaves nothing to start; a local run takes 1"),
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
    assert len(refusals(replicas=2, engine={"tensorParallel": 2, "args": ["--mode=mux"]})) == 3


def test_api_keys_come_from_the_environment_as_hashes() -> None:
    auth = {"apiKeysSecretRef": {"name": "keys"}}
    node = planned({local.API_KEYS_VARIABLE: "one, two"}, auth=auth)
    assert node.options.api_key_sha256 == tuple(hashlib.sha256(key).hexdigest() for key in (b"one", b"two"))
    assert planned({local.API_KEYS_VARIABLE: "one"}).options.api_key_sha256 == ()


def test_variable_of_a_secret_is_inherited_or_optional() -> None:
    reference = {"name": "s", "key": "k"}
    required = {"env": [{"name": "T", "valueFrom": {"secretKeyRef": reference}}]}
    optional = {"env": [{"name": "T", "valueFrom": {"configMapKeyRef": {**reference, "optional": True}}}]}
    assert planned({"T": "x"}, engine=required).variables == {}
    assert planned(engine=optional).variables == {}


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
    assert set(local.SETTLED_BY_FIELD) <= fields
    assert fields >= local.SETTLED_BY_DRIFT


def test_log_level_of_the_command_line_wins() -> None:
    service = manifests.parse(documents.minimal(engine={"args": ["--log-level=error"]}))
    node = local.plan(service, host="127.0.0.1", port=1, log_level="debug", environ={})
    assert node.options.log_level == "debug"


def test_drain_is_cut_to_what_a_person_waits() -> None:
    assert planned(rollout={"drainTimeout": "1h"}).options.drain_timeout_s == local.MAX_DRAIN_S


def test_other_model_keeps_the_promise(tmp_path: Path) -> None:
    folder = tmp_path / "my model (1)"
    folder.mkdir()
    service = manifests.parse(
        documents.minimal(slo={"tbt": {"targetMs": 20}}, model={"uri": "hf://a/b", "revision": "r"})
    )
    other = local.with_model(service, str(folder))
    assert other.spec.model.uri == f"file://{folder}"
    assert other.served_name == "my-model-1"
    assert other.spec.model.revision is None
    assert other.spec.slo == service.spec.slo
    assert local.with_model(service, "hf://Qwen/Qwen3-8B").served_name == "Qwen/Qwen3-8B"


def test_other_model_that_is_none(tmp_path: Path) -> None:
    service = manifests.default()
    with pytest.raises(LocalError, match="is neither a folder nor a URI"):
        local.with_model(service, str(tmp_path / "absent"))
    with pytest.raises(ManifestError, match=r"spec\.model\.uri"):
        local.with_model(service, "ftp://x")


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
