"""The CustomResourceDefinition: the committed file is the generated one, structural, and judges as pydantic does."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import hypothesis
import jsonschema
import jsonschema.validators
import pytest
import yaml
from hypothesis import strategies as st

import documents
from drift_operator import crd, manifests

FILE = documents.REPOSITORY / "crds" / "driftservices.drift.ai.yaml"
SCHEMA = crd.schema()

ALLOWED_KEYS = {
    *("type", "description", "default", "enum", "pattern", "properties", "items", "required"),
    *(
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "maxItems",
        "maxProperties",
        "additionalProperties",
        "anyOf",
    ),
    *("x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields", "x-kubernetes-validations"),
    *("x-kubernetes-list-type", "x-kubernetes-list-map-keys"),
}


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema inside a schema, with its path."""
    yield path, schema
    for name, item in schema.get("properties", {}).items():
        yield from nodes(item, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from nodes(schema[key], f"{path}[]")


def test_committed_file_is_the_generated_one() -> None:
    assert FILE.read_text() == crd.render(), (
        "run: python -m drift_operator.crd > crds/driftservices.drift.ai.yaml"
    )
    assert yaml.safe_load(FILE.read_text()) == crd.build()


@pytest.mark.parametrize(("path", "schema"), [pytest.param(*node, id=node[0]) for node in nodes(SCHEMA)])
def test_schema_is_structural_and_bounded(path: str, schema: dict[str, Any]) -> None:
    assert set(schema) <= ALLOWED_KEYS
    if schema.get("x-kubernetes-int-or-string"):
        assert schema["anyOf"] == [{"type": "integer"}, {"type": "string"}]
        assert "type" not in schema
        return
    assert "anyOf" not in schema
    match schema["type"]:
        case "string" if path not in (".apiVersion", ".kind"):
            assert "enum" in schema or "maxLength" in schema
        case "array":
            assert "maxItems" in schema
        case "object" if "additionalProperties" in schema:
            assert "maxProperties" in schema
            assert "properties" not in schema
        case "integer" | "number":
            assert "minimum" in schema
        case _:
            pass
    for rule in schema.get("x-kubernetes-validations", ()):
        assert set(rule) <= {"rule", "message", "fieldPath"}
        if "fieldPath" in rule:
            assert rule["fieldPath"][1:] in schema["properties"]


def filled(schema: dict[str, Any], value: Any) -> Any:
    """As the API server fills in defaults: only inside objects that are there."""
    if isinstance(value, dict):
        for name, item in schema.get("properties", {}).items():
            if name not in value and "default" in item:
                value[name] = copy.deepcopy(item["default"])
            if name in value:
                filled(item, value[name])
    if isinstance(value, list):
        for entry in value:
            filled(schema.get("items", {}), entry)
    return value


@pytest.mark.parametrize("document", [documents.minimal(), documents.full()], ids=["minimal", "full"])
def test_defaults_are_those_of_the_types(document: dict[str, Any]) -> None:
    by_types = manifests.parse(document).model_dump(by_alias=True, exclude_none=True)
    by_server = filled(SCHEMA, copy.deepcopy(document))
    assert by_server["spec"] == by_types["spec"]
    assert by_server.get("status") == by_types.get("status")
    assert sound_by_schema(by_server)


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """Unknown fields refused, as a client's strict field validation does."""
    made = dict(schema)
    if "properties" in schema:
        made["properties"] = {name: strict(item) for name, item in schema["properties"].items()}
        made["additionalProperties"] = False
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            made[key] = strict(schema[key])
    return made


def _pattern(
    validator: Any, pattern: str, value: object, schema: object
) -> Iterator[jsonschema.ValidationError]:
    """RE2's `$` is the text's end; Python's also matches before a last newline."""
    if isinstance(value, str) and not re.search(pattern.replace("$", r"\Z"), value):
        yield jsonschema.ValidationError(f"{value!r} does not match {pattern!r}")


Validator = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
    jsonschema.Draft202012Validator, {"pattern": _pattern}
)
STRICT = strict({**SCHEMA, "properties": {**SCHEMA["properties"], "metadata": {}}})
BY_SCHEMA = Validator(STRICT)


def pruned(schema: dict[str, Any], value: Any) -> Any:
    """Without the nulls that the API server prunes: those of declared fields and of maps."""
    if isinstance(value, dict):
        known, others = schema.get("properties", {}), schema.get("additionalProperties")
        return {
            name: pruned(known.get(name, others or {}), item)
            for name, item in value.items()
            if item is not None or (name not in known and others is None)
        }
    if isinstance(value, list):
        return [pruned(schema.get("items", {}), item) for item in value]
    return value


def sound_by_schema(document: Any) -> bool:
    return bool(BY_SCHEMA.is_valid(pruned(SCHEMA, document)))


def sound_by_types(document: Any) -> bool:
    """All but the rules, which a JSON schema does not know."""
    return all(problem.is_rule for problem in manifests.find_problems(document))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside a document."""
    yield path
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, item in entries:
        yield from places(item, (*path, key))


FULL = documents.full()
PLACES = [path for path in places(FULL) if path[:1] in (("spec",), ("status",))]
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.sampled_from(
        [0.5, 0.9999, 1.0, 16, 17, 1000, 1001, 1024, 1025, 60_000, 60_001, 65535, 65536, 3_600_001]
    ),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(
        [
            "",
            "a",
            "A",
            "0",
            "5m",
            "1m30s",
            "30s ",
            "10%",
            "101%",
            "1Gi",
            "1.5",
            "1e3",
            "-1",
            "auto",
            "sim",
            "HPA",
            "a\n",
        ]
    ),
    st.sampled_from(
        ["hf://a/b/c", "hf://a", "s3://", "s3:///a", "pvc://c/\n", "file://x", "--a=b", "--A=b", "--a"]
    ),
    st.text(max_size=8),
    st.integers(1, 5000).map(lambda count: "x" * count),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
EDITS = st.one_of(
    st.tuples(st.just("set"), st.sampled_from(PLACES), VALUES),
    st.tuples(st.just("drop"), st.sampled_from(PLACES), st.none()),
    st.tuples(st.just("add"), st.sampled_from(PLACES), st.text(max_size=6)),
    st.tuples(st.just("repeat"), st.sampled_from(PLACES), st.sampled_from([2, 11, 17, 65])),
)


def edited(document: Any, edit: tuple[str, tuple[Any, ...], Any]) -> Any:
    """The document with one change; unchanged where an earlier change took the place away."""
    verb, path, operand = edit
    document = copy.deepcopy(document)
    holder = document
    try:
        for key in path[:-1]:
            holder = holder[key]
        here = holder[path[-1]]
    except (KeyError, IndexError, TypeError):
        return document
    if verb == "drop":
        del holder[path[-1]]
    elif verb == "set":
        holder[path[-1]] = operand
    elif verb == "add" and isinstance(here, dict):
        here[operand] = 1
    elif verb == "repeat" and isinstance(here, list):
        holder[path[-1]] = here * operand
    return document


@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(st.lists(EDITS, min_size=1, max_size=3))
def test_schema_and_types_judge_alike(edits: list[tuple[str, tuple[Any, ...], Any]]) -> None:
    document: Any = FULL
    for edit in edits:
        document = edited(document, edit)
    assert sound_by_types(document) == sound_by_schema(document)


@pytest.mark.parametrize("path", [path for path in PLACES if len(path) > 1], ids=str)
def test_every_field_of_the_full_example_is_declared(path: tuple[Any, ...]) -> None:
    schema = SCHEMA
    for key in path:
        if schema.get("x-kubernetes-preserve-unknown-fields"):
            return
        known = schema.get("properties", {})
        schema = schema["items"] if isinstance(key, int) else known.get(key) or schema["additionalProperties"]


def test_full_example_leaves_no_field_out() -> None:
    used = {tuple(key for key in path if not isinstance(key, int)) for path in PLACES}
    declared = {
        tuple(path.replace("[]", "").split(".")[1:])
        for path, _ in nodes(SCHEMA)
        if re.match(r"\.(spec|status)", path)
    }
    # The two that another choice in the same document rules out.
    assert declared - used == {("spec", "replicas")}


def columns() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = crd.build()["spec"]["versions"][0]["additionalPrinterColumns"]
    return found


@pytest.mark.parametrize("column", columns(), ids=lambda column: column["name"])
def test_columns_show_fields_that_exist(column: dict[str, Any]) -> None:
    if column["name"] == "Age":
        return
    schema = SCHEMA
    for part in re.sub(r"\[.*?\)\]", ".[]", column["jsonPath"]).split(".")[1:]:
        schema = schema["items"] if part == "[]" else schema["properties"][part]
    assert schema["type"] == column["type"]


def test_columns_answer_whether_the_promise_is_kept() -> None:
    shown = [column["name"] for column in columns() if not column.get("priority")]
    assert shown == ["Ready", "SLO met", "Replicas", "TTFT", "TBT", "Decode SMs", "Age"]


def test_scale_has_all_that_an_autoscaler_reads() -> None:
    scale = crd.build()["spec"]["versions"][0]["subresources"]["scale"]
    assert sorted(scale) == ["labelSelectorPath", "specReplicasPath", "statusReplicasPath"]
    for path in scale.values():
        _, top, name = path.split(".")
        assert name in SCHEMA["properties"][top]["properties"]


def test_whole_file_fits_a_client_side_apply() -> None:
    assert len(crd.render()) < 256 * 1024
