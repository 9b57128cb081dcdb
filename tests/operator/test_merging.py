"""A user's pod template over ours: the rules of a strategic merge, on pods of every small shape."""

from __future__ import annotations

import copy
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from drift_operator.objects import merging
from drift_operator.objects.merging import MergeError

Template = dict[str, Any]

words = st.sampled_from(["a", "b", "c"])
scalars = st.one_of(words, st.integers(0, 3), st.booleans())


def objects(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Template]:
    return st.fixed_dictionaries({}, optional=fields)


def listed(key: str, items: st.SearchStrategy[Template]) -> st.SearchStrategy[list[Template]]:
    return st.lists(items, max_size=3, unique_by=lambda item: item[key])


def named(key: str = "name", **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Template]:
    return st.fixed_dictionaries({key: words}, optional=fields)


containers = named(
    image=words,
    env=listed("name", named(value=words)),
    ports=listed("containerPort", named("containerPort", name=words)),
    volumeMounts=listed("mountPath", named("mountPath", name=words)),
    args=st.lists(words, max_size=2),
    securityContext=objects(runAsUser=st.integers(0, 3), capabilities=objects(drop=st.lists(words))),
)
templates = objects(
    metadata=objects(labels=st.dictionaries(st.sampled_from(["env", "ports", "team"]), words)),
    spec=objects(
        containers=listed("name", containers),
        volumes=listed("name", named(emptyDir=objects(medium=words), secret=objects(secretName=words))),
        tolerations=st.lists(objects(key=words), max_size=2),
        nodeSelector=st.dictionaries(words, words),
        hostNetwork=st.booleans(),
    ),
)


@hypothesis.given(templates)
def test_nothing_over_a_template_leaves_it(template: Template) -> None:
    assert merging.merge(template, {}) == template


@hypothesis.given(templates)
def test_a_template_over_nothing_is_that_template(template: Template) -> None:
    assert merging.merge({}, template) == template


@hypothesis.given(templates, templates)
def test_what_is_laid_over_twice_is_there_once(base: Template, over: Template) -> None:
    once = merging.merge(base, over)
    assert merging.merge(once, over) == once


@hypothesis.given(templates, templates)
def test_both_sides_stay_as_they_are(base: Template, over: Template) -> None:
    before = copy.deepcopy((base, over))
    merged = merging.merge(base, over)
    for container in merged.get("spec", {}).get("containers", ()):
        container.setdefault("env", []).append({"name": "later"})
    assert (base, over) == before


@hypothesis.given(templates, templates)
def test_every_container_of_either_side_is_there_once_and_ours_come_first(
    base: Template, over: Template
) -> None:
    def named_in(template: Template) -> list[str]:
        return [container["name"] for container in template.get("spec", {}).get("containers", ())]

    ours, theirs = named_in(base), named_in(over)
    found = named_in(merging.merge(base, over))
    assert found[: len(ours)] == ours
    assert sorted(found) == sorted({*ours, *theirs})


@hypothesis.given(templates, templates)
def test_the_users_scalars_win(base: Template, over: Template) -> None:
    def holds(found: Any, wanted: Any) -> bool:
        if isinstance(wanted, dict):
            return all(name in found and holds(found[name], value) for name, value in wanted.items())
        if isinstance(wanted, list):
            return all(any(holds(item, value) for item in found) for value in wanted)
        return bool(found == wanted)

    assert holds(merging.merge(base, over), over)


def test_variables_are_merged_by_name_and_arguments_replaced() -> None:
    base = {"containers": [{"name": "node", "args": ["--a"], "env": [{"name": "A", "value": "1"}]}]}
    over = {
        "containers": [
            {"name": "side"},
            {"name": "node", "args": ["--b"], "env": [{"name": "B"}, {"name": "A", "value": "2"}]},
        ]
    }
    assert merging.merge(base, over) == {
        "containers": [
            {"name": "node", "args": ["--b"], "env": [{"name": "A", "value": "2"}, {"name": "B"}]},
            {"name": "side"},
        ]
    }


def test_a_volume_gets_another_source_and_keeps_nothing_of_the_old_one() -> None:
    base = {"volumes": [{"name": "cache", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]}
    claim = {"name": "cache", "persistentVolumeClaim": {"claimName": "models"}}
    assert merging.merge(base, {"volumes": [claim]}) == {"volumes": [claim, {"name": "tmp", "emptyDir": {}}]}


def test_null_takes_a_field_away_wherever_it_stands() -> None:
    base = {"spec": {"a": {"b": 1, "c": 2}, "containers": [{"name": "x", "lifecycle": {"preStop": {}}}]}}
    over = {"spec": {"a": {"b": None}, "d": {"e": None}, "containers": [{"name": "x", "lifecycle": None}]}}
    assert merging.merge(base, over) == {"spec": {"a": {"c": 2}, "d": {}, "containers": [{"name": "x"}]}}


def test_ports_of_one_number_and_two_protocols_are_two() -> None:
    udp, tcp = {"containerPort": 53, "protocol": "UDP"}, {"containerPort": 53, "name": "dns"}
    assert merging.merge({"ports": [udp]}, {"ports": [tcp]}) == {"ports": [udp, tcp]}


def test_a_label_called_like_a_list_is_a_label() -> None:
    over = {"metadata": {"labels": {"env": "prod", "ports": "many"}}}
    assert merging.merge({"metadata": {"labels": {}}}, over) == over


@pytest.mark.parametrize(
    ("over", "line"),
    [
        ({"spec": 5}, "spec: 5 is not an object"),
        ({"spec": {"containers": {}}}, "spec.containers: {} is not a list"),
        ({"spec": {"containers": ["x"]}}, 'spec.containers[0]: "x" is not an object'),
        ({"spec": {"containers": [{"image": "x"}]}}, "spec.containers[0].name: is required"),
        ({"spec": {"containers": [{"name": []}]}}, "spec.containers[0].name: [] is neither"),
        ({"spec": {"list": "x"}}, 'spec.list: "x" is not a list'),
        ({"spec": {"$patch": "replace"}}, "spec.$patch: directives of a patch are not taken here"),
    ],
)
def test_what_has_the_wrong_form_is_named_with_its_place(over: Template, line: str) -> None:
    base = {"spec": {"containers": [{"name": "node"}], "list": [1]}}
    with pytest.raises(MergeError) as caught:
        merging.merge(base, over)
    assert str(caught.value).startswith(line)
