"""All objects of a service together: how they are called, labelled, owned and ordered, and what is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

import documents
import service_objects
from drift_operator import manifests
from drift_operator.driftservice import NAME_CHARACTERS
from drift_operator.objects import access, kinds, names, service
from service_objects import FACTS, OPTIONS, built, parsed

LONGEST = "d" * NAME_CHARACTERS

EVERYTHING: dict[str, Any] = {
    "autoscaling": {"maxReplicas": 4, "mode": "HPA"},
    "expose": {"ingress": {"host": "demo.example"}},
    "observability": {"dashboards": True},
    "auth": {"apiKeysSecretRef": {"name": "keys"}},
}


@pytest.mark.parametrize("name", ["demo", LONGEST])
def test_every_object_is_the_services_own(name: str) -> None:
    for made in built(name, **EVERYTHING):
        metadata = made["metadata"]
        assert metadata["namespace"] == "team"
        assert names.labels(name).items() <= metadata["labels"].items()
        (owner,) = metadata["ownerReferences"]
        assert owner == {
            "apiVersion": "drift.ai/v1alpha1",
            "kind": "DriftService",
            "name": name,
            "uid": FACTS.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }


def test_names_fit_and_tell_objects_apart() -> None:
    objects = built(LONGEST, **EVERYTHING)
    called = [(made["kind"], made["metadata"]["name"]) for made in objects]
    assert len(set(called)) == len(called)
    assert all(len(name) <= 63 for _, name in called)


def test_pods_come_after_all_that_they_need() -> None:
    order = [made["kind"] for made in built(**EVERYTHING)]
    first_pod = order.index("Deployment")
    needed = {"ServiceAccount", "Role", "RoleBinding", "NetworkPolicy"}
    assert needed <= set(order[:first_pod])
    promise = next(place for place, made in enumerate(built()) if made["metadata"]["name"] == "demo-promise")
    assert promise < first_pod


def test_the_token_is_in_its_secret_and_nowhere_else() -> None:
    secret = access.control_secret(parsed(), FACTS, "the-token")
    assert secret["stringData"] == {"token": "the-token"}
    assert secret["metadata"]["name"] == "demo-control"
    assert "Secret" not in service_objects.kinds_of(built(**EVERYTHING))


def test_a_service_that_asks_for_nothing_optional_gets_nothing_optional() -> None:
    optional = {"Ingress", "HorizontalPodAutoscaler", "ScaledObject", "PodMonitor", "PrometheusRule"}
    objects = built(facts=dataclasses.replace(FACTS, kinds=frozenset()))
    assert not service_objects.kinds_of(objects) & optional


@hypothesis.given(st.sets(st.sampled_from([*EVERYTHING])), st.sets(st.sampled_from([*EVERYTHING])))
def test_whatever_a_changed_spec_no_longer_wants_is_of_a_kind_that_is_looked_through(
    before: set[str], after: set[str]
) -> None:
    def found(asked: set[str]) -> set[tuple[str, str, str]]:
        spec = {field: EVERYTHING[field] for field in asked}
        return {(made["apiVersion"], made["kind"], made["metadata"]["name"]) for made in built(**spec)}

    gone = {(api_version, kind) for api_version, kind, _ in found(before) - found(after)}
    assert gone <= {(kind.api_version, kind.kind) for kind in service.prunable()}


def test_what_is_looked_through_may_be_absent_where_it_is_optional() -> None:
    assert set(kinds.OPTIONAL) <= set(service.prunable())


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ({}, {}),
        ({"autoscaling": {"maxReplicas": 4}}, {}),
        ({"autoscaling": {"maxReplicas": 4, "mode": "External"}}, {}),
        (
            {"autoscaling": {"maxReplicas": 4, "mode": "HPA"}},
            {"autoscaling/v2/HorizontalPodAutoscaler": "spec.autoscaling.mode"},
        ),
        (
            {"autoscaling": {"maxReplicas": 4, "mode": "KEDA"}},
            {"keda.sh/v1alpha1/ScaledObject": "spec.autoscaling.mode"},
        ),
        (
            {"observability": {"podMonitor": "Enabled"}},
            {"monitoring.coreos.com/v1/PodMonitor": "spec.observability.podMonitor"},
        ),
    ],
)
def test_kinds_that_a_service_can_not_do_without(spec: dict[str, Any], wanted: dict[str, str]) -> None:
    assert service.kinds_wanted(parsed(**spec)) == wanted


@pytest.mark.parametrize("file", documents.EXAMPLES, ids=lambda file: file.name)
def test_a_cluster_serves_every_example(file: Any) -> None:
    for example in manifests.load(file):
        assert service.problems(example) == []
        assert service.build(example, OPTIONS, FACTS)


TEMPLATE = "spec.engine.podTemplate"


def template(**fields: Any) -> dict[str, Any]:
    return {"engine": {"podTemplate": fields}}


def node(**fields: Any) -> dict[str, Any]:
    return template(spec={"containers": [{"name": "node", **fields}]})


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ({"engine": {"tensorParallel": 2}}, "spec.engine.tensorParallel: 2 is above the maximum 1"),
        ({"multiplexing": {"mode": "disaggregated"}}, "spec.multiplexing.mode: disaggregated is not served"),
        ({"model": {"uri": "s3://bucket/x"}}, "spec.model.uri: s3:// is not fetched by this version; mount"),
        (
            {"model": {"uri": "pvc://claim/a/../../b"}},
            "spec.model.uri: pvc://claim/a/../../b has '..' in its path",
        ),
        (
            {"model": {"uri": "pvc://claim/a", "revision": "main"}},
            "spec.model.revision: main is of hf:// models only",
        ),
        ({"engine": {"args": ["--max-runing=8"]}}, "spec.engine.args[0]: unknown option --max-runing"),
        (
            {"engine": {"env": [{"name": "DRIFT_CONTROL_TOKEN", "value": "x"}]}},
            "spec.engine.env[0].name: DRIFT_CONTROL_TOKEN is set by Drift itself",
        ),
        (
            node(env=[{"name": "POD_NAME", "value": "x"}]),
            f"{TEMPLATE}.spec.containers[0].env[0].name: POD_NAME is set by Drift itself",
        ),
        (node(image="x"), f"{TEMPLATE}.spec.containers[0].image: is what spec.engine.image says"),
        (node(args=["x"]), f"{TEMPLATE}.spec.containers[0].args: is what spec.engine.args says"),
        (node(env=None), f"{TEMPLATE}.spec.containers[0].env: can't be taken away"),
        (node(env=[{"value": "x"}]), f"{TEMPLATE}.spec.containers[0].env[0].name: is required"),
        (template(spec=5), f"{TEMPLATE}.spec: 5 is not an object"),
        (template(spec=None), f"{TEMPLATE}.spec: can't be taken away"),
        (template(metadata=None), f"{TEMPLATE}.metadata: can't be taken away"),
        (template(spec={"containers": None}), f"{TEMPLATE}.spec.containers: can't be taken away"),
        (template(spec={"securityContext": "none"}), f'{TEMPLATE}.spec.securityContext: "none" is not an'),
        (
            template(spec={"terminationGracePeriodSeconds": 5}),
            f"{TEMPLATE}.spec.terminationGracePeriodSeconds: is what spec.rollout.drainTimeout says",
        ),
        (
            template(spec={"initContainers": [{"name": "node"}]}),
            f"{TEMPLATE}.spec.initContainers[0].name: node is the name of Drift's own",
        ),
        (
            template(metadata={"labels": {"app.kubernetes.io/instance": "x"}}),
            f"{TEMPLATE}.metadata.labels: app.kubernetes.io/instance is what Drift finds its pods by",
        ),
    ],
)
def test_what_a_cluster_can_not_serve_is_named_with_its_field(spec: dict[str, Any], line: str) -> None:
    (found,) = service.problems(parsed(**spec))
    assert found.startswith(line)


def test_all_problems_come_at_once() -> None:
    spec: dict[str, Any] = {
        "model": {"uri": "s3://b/x"},
        "engine": {"tensorParallel": 2, "args": ["--mode=mux"]},
    }
    assert len(service.problems(parsed(**spec))) == 3


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(0, 9), st.sampled_from(["node", "env", "spec", "x"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(
            st.sampled_from(["metadata", "labels", "spec", "containers", "initContainers", "env", "name"]),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=8,
)


@hypothesis.given(
    st.dictionaries(st.sampled_from(["metadata", "spec"]), st.dictionaries(st.text(max_size=3), JSON) | JSON)
    | st.fixed_dictionaries({"spec": st.fixed_dictionaries({"containers": JSON, "initContainers": JSON})})
)
def test_any_pod_template_is_refused_in_words_or_built(over: dict[str, Any]) -> None:
    asked = parsed(engine={"podTemplate": over})
    if not service.problems(asked):
        assert service.build(asked, OPTIONS, FACTS)
