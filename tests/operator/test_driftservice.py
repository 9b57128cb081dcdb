"""What a DriftService accepts, what it refuses, and in which words."""

from __future__ import annotations

from typing import Any

import pytest

import documents
from drift_operator import fields, manifests
from drift_operator.driftservice import DriftService
from drift_operator.errors import ManifestError


def problems_of(document: object) -> list[str]:
    return [str(problem) for problem in manifests.find_problems(document)]


def test_promise_has_the_documented_defaults() -> None:
    spec = manifests.parse(documents.minimal()).spec
    assert (spec.slo.ttft.target_ms, spec.slo.tbt.target_ms) == (400, 80)
    assert (spec.slo.ttft.attainment, spec.slo.tbt.attainment) == (0.99, 0.99)
    assert spec.slo.ttft.per_token_ms == 0
    assert spec.multiplexing.mode == "auto"
    assert spec.wanted_replicas == 1
    assert not spec.paused


def test_full_document_comes_back_as_it_was() -> None:
    document = documents.full()
    service = manifests.parse(document)
    assert service.model_dump(by_alias=True, exclude_unset=True) == document


def test_served_name_falls_back_to_the_service() -> None:
    assert manifests.parse(documents.minimal()).served_name == "demo"
    named = documents.minimal(model={"uri": "hf://a/b", "name": "a/b"})
    assert manifests.parse(named).served_name == "a/b"


def test_null_is_the_same_as_absent() -> None:
    document = documents.minimal(slo=None, replicas=None, routing={"policy": None})
    assert manifests.parse(document).spec == manifests.parse(documents.minimal()).spec


def test_whole_float_is_an_integer() -> None:
    assert manifests.parse(documents.minimal(replicas=3.0)).spec.replicas == 3


@pytest.mark.parametrize(
    "uri",
    [
        "hf://Qwen/Qwen3-8B",
        "hf://gpt2",
        "pvc://models/llama/8b",
        "pvc://models",
        "file:///srv/my models/8b",
        "oci://registry.example.com:5000/team/model:v1",
        "s3://bucket/path",
        "embedded://drift-tiny",
    ],
)
def test_model_uris(uri: str) -> None:
    assert problems_of(documents.minimal(model={"uri": uri})) == []


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ({"slo": {"tbt": {"targetMs": 0}}}, "spec.slo.tbt.targetMs: 0 is below the minimum 1"),
        (
            {"slo": {"ttft": {"targetMs": 3600001}}},
            "spec.slo.ttft.targetMs: 3600001 is above the maximum 3600000",
        ),
        ({"slo": {"ttft": {"attainment": 1}}}, "spec.slo.ttft.attainment: 1 is above the maximum 0.9999"),
        ({"slo": {"tbt": {"targetMs": "80"}}}, 'spec.slo.tbt.targetMs: "80" is not an integer'),
        ({"slo": {"tbt": {"targetMs": 8.5}}}, "spec.slo.tbt.targetMs: 8.5 is not an integer"),
        ({"slo": {"tbt": {"targetMs": True}}}, "spec.slo.tbt.targetMs: true is not an integer"),
        ({"slo": []}, "spec.slo: [] is not an object"),
        ({"slo": {"tbt": {"targetMS": 5}}}, "spec.slo.tbt.targetMS: unknown field; did you mean targetMs?"),
        ({"slo": {"zebra": 5}}, "spec.slo.zebra: unknown field; known here: ttft, tbt, window"),
        ({"slo": {"window": "5s"}}, "spec.slo.window: 5s is below the minimum 10s"),
        ({"slo": {"window": "2d"}}, 'spec.slo.window: "2d" is not a duration such as 500ms, 30s or 1m30s'),
        ({"paused": "yes"}, 'spec.paused: "yes" is not true or false'),
        ({"replicas": 1001}, "spec.replicas: 1001 is above the maximum 1000"),
        (
            {"autoscaling": {"minReplicas": 5, "maxReplicas": 2}},
            "spec.autoscaling.minReplicas: 5 is above maxReplicas 2",
        ),
        ({"autoscaling": {"minReplicas": 5}}, "spec.autoscaling.maxReplicas: is required"),
        (
            {"replicas": 2, "autoscaling": {"maxReplicas": 4}},
            "spec.replicas: 2 excludes autoscaling, which decides on the number of nodes",
        ),
        (
            {"multiplexing": {"decodeSMs": {"min": 32, "initial": 16}}},
            "spec.multiplexing.decodeSMs.min: 32 is above initial 16",
        ),
        (
            {"multiplexing": {"decodeSMs": {"initial": 64, "max": 32}}},
            "spec.multiplexing.decodeSMs.initial: 64 is above max 32",
        ),
        (
            {"multiplexing": {"mode": "prefilfirst"}},
            'spec.multiplexing.mode: "prefilfirst" is not one of auto, mux, fused, overlap, prefill-first, '
            "batch-table, muxwise, solo-prefill, solo-decode, disaggregated; did you mean prefill-first?",
        ),
        (
            {"rollout": {"maxSurge": 0}},
            "spec.rollout.maxSurge: 0 leaves no way to replace a node while maxUnavailable is 0 too",
        ),
        (
            {"rollout": {"maxSurge": "150%"}},
            'spec.rollout.maxSurge: "150%" is not a number of nodes or a percentage such as 25%',
        ),
        (
            {"engine": {"resources": {"limits": {"memory": "12GiB"}}}},
            'spec.engine.resources.limits.memory: "12GiB" is not a Kubernetes quantity such as 500m, 4 or 16Gi',
        ),
        (
            {"engine": {"tensorParallel": 2, "resources": {"limits": {"nvidia.com/gpu": 1}}}},
            "spec.engine.tensorParallel: 2 differs from the 1 GPUs of resources.limits['nvidia.com/gpu']",
        ),
        (
            {"engine": {"env": [{"name": "A"}, {"name": "A"}]}},
            "spec.engine.env: name 'A' appears more than once",
        ),
        (
            {"engine": {"env": [{"name": "A", "valueFrom": {}}]}},
            "spec.engine.env[0].valueFrom: needs exactly one of secretKeyRef and configMapKeyRef",
        ),
        (
            {"engine": {"args": ["--a=1"] * 33}},
            "spec.engine.args: has 33 entries, more than the maximum 32",
        ),
        (
            {"engine": {"args": ["verbose"]}},
            'spec.engine.args[0]: "verbose" is not --OPTION=VALUE, such as --max-running=32',
        ),
        (
            {"model": {"uri": "hf://a/b", "name": "x" * 254}},
            "spec.model.name: has 254 characters, more than the maximum 253",
        ),
        (
            {"model": {"uri": "http://x"}},
            'spec.model.uri: "http://x" is not hf://OWNER/NAME, file:///PATH, pvc://CLAIM/PATH, oci://IMAGE, '
            "s3://BUCKET/PATH or embedded://NAME",
        ),
        ({"model": {}}, "spec.model.uri: is required"),
    ],
)
def test_one_problem_is_one_line(spec: dict[str, Any], line: str) -> None:
    assert problems_of(documents.minimal(**spec)) == [line]


@pytest.mark.parametrize("mode", ["HPA", "KEDA", "External"])
def test_outside_autoscaler_may_write_replicas(mode: str) -> None:
    assert problems_of(documents.minimal(replicas=2, autoscaling={"maxReplicas": 4, "mode": mode})) == []


def test_all_problems_come_at_once_even_rules_around_wrong_values() -> None:
    document = documents.minimal(
        slo={"tbt": {"targetMs": 0}},
        paused="no",
        replicas=2,
        autoscaling={"minReplicas": 5, "maxReplicas": 3},
        rollout={"maxSurge": 0, "drainTimeout": "soon"},
    )
    with pytest.raises(ManifestError) as caught:
        manifests.parse(document)
    assert sorted(line.partition(":")[0] for line in caught.value.problems) == [
        "spec.autoscaling.minReplicas",
        "spec.paused",
        "spec.replicas",
        "spec.rollout.drainTimeout",
        "spec.rollout.maxSurge",
        "spec.slo.tbt.targetMs",
    ]
    assert str(caught.value).splitlines() == list(caught.value.problems)


@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("x" * 41, "metadata.name: has 41 characters, more than the maximum 40"),
        ("Chat", 'metadata.name: "Chat" is not lower-case letters'),
        ("9lives", 'metadata.name: "9lives" is not lower-case letters'),
        ("chat-", 'metadata.name: "chat-" is not lower-case letters'),
    ],
)
def test_name_must_fit_the_names_made_from_it(name: str, phrase: str) -> None:
    (line,) = problems_of(documents.minimal() | {"metadata": {"name": name}})
    assert line.startswith(phrase)


def test_metadata_of_the_cluster_is_not_ours_to_judge() -> None:
    metadata = {"name": "demo", "resourceVersion": "12", "managedFields": [], "generation": 3}
    service = manifests.parse(documents.minimal() | {"metadata": metadata})
    assert service.metadata.generation == 3


@pytest.mark.parametrize(
    ("document", "lines"),
    [
        (5, ["5 is not an object of kind DriftService"]),
        ({}, ["apiVersion: is required: drift.ai/v1alpha1", "kind: is required: DriftService"]),
        (
            {"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": -1}},
            ['apiVersion: "apps/v1" is not drift.ai/v1alpha1', 'kind: "Deployment" is not DriftService'],
        ),
    ],
)
def test_other_kinds_are_named_and_not_judged_further(document: object, lines: list[str]) -> None:
    assert problems_of(document) == lines


def test_long_values_are_cut_in_messages() -> None:
    (line,) = problems_of(documents.minimal(paused="x" * 1000))
    assert len(line) < 100


def test_documents_are_immutable() -> None:
    service = manifests.parse(documents.minimal())
    assert isinstance(service, DriftService)
    with pytest.raises(ValueError, match="frozen"):
        service.spec.paused = True


@pytest.mark.parametrize(
    ("text", "expected_s"),
    [("1m30s", 90.0), ("500ms", 0.5), ("2h", 7200.0), ("0s", 0.0), ("1h1m1s1ms", 3661.001)],
)
def test_durations_in_seconds(text: str, expected_s: float) -> None:
    assert fields.seconds(text) == pytest.approx(expected_s)
