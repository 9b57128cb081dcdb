"""The scalars and the base type from which the DriftService resource is built.

Each type carries its bound once, for both readers: pydantic judges documents here, and `crd` turns the same
declarations into the schema that the Kubernetes API server judges by. A rule that a JSON schema can't say is a
`Rule` (or `Between` on a duration): its CEL expression for the server beside its Python twin.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

BROKEN_RULE = "broken_rule"
"""Error type of a value that the schema allows and a CEL rule refuses; its context lists (field, phrase)."""

NOT_A_FORM = "not_a_form"
"""Error type of a value that has none of a scalar's accepted forms; its context has the phrase."""

PHRASES: dict[str, str] = {}
"""Pattern -> how a person would say it."""


def _said(pattern: str, phrase: str) -> str:
    PHRASES[pattern] = phrase
    return pattern


def _integral(value: object) -> object:
    """JSON has one number type: the API server takes 3.0 where the schema says integer, and so do we."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Integer = Annotated[int, BeforeValidator(_integral)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Text = Annotated[str, Field(max_length=1024)]

Name = Annotated[
    str,
    Field(
        max_length=63,
        pattern=_said(
            r"^[a-z]([-a-z0-9]*[a-z0-9])?$",
            "lower-case letters, digits and '-', beginning with a letter and not ending with '-'",
        ),
    ),
]
"""An object's name that also works as a Service's (DNS-1035 label)."""

Subdomain = Annotated[
    str,
    Field(
        max_length=253,
        pattern=_said(
            r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
            "lower-case letters, digits, '-' and '.', such as demo.example",
        ),
    ),
]
"""An object's or a host's name (DNS-1123 subdomain)."""

SecretKey = Annotated[
    str, Field(max_length=253, pattern=_said(r"^[-._a-zA-Z0-9]+$", "letters, digits, '-', '_' and '.'"))
]
HeaderName = Annotated[
    str, Field(max_length=64, pattern=_said(r"^[A-Za-z][-A-Za-z0-9]*$", "an HTTP header's name"))
]
EnvName = Annotated[
    str,
    Field(
        max_length=128, pattern=_said(r"^[A-Za-z_][A-Za-z0-9_]*$", "letters, digits and '_', no digit first")
    ),
]
ModelName = Annotated[
    str,
    Field(
        max_length=253,
        pattern=_said(
            r"^[A-Za-z0-9]([-A-Za-z0-9._:/]*[A-Za-z0-9])?$",
            "letters, digits and '-._:/' between them, such as Qwen/Qwen3-8B",
        ),
    ),
]
ModelUri = Annotated[
    str,
    Field(
        max_length=1024,
        pattern=_said(
            r"^(hf://[-A-Za-z0-9_.]+(/[-A-Za-z0-9_.]+)?|embedded://[-A-Za-z0-9_.]+|file:///[^\x00-\x1f]+"
            r"|(pvc|oci|s3)://[^/\x00-\x20][^\x00-\x1f]*)$",
            "hf://OWNER/NAME, file:///PATH, pvc://CLAIM/PATH, oci://IMAGE, s3://BUCKET/PATH or embedded://NAME",
        ),
    ),
]
_PORT = r"([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
HttpUrl = Annotated[
    str,
    Field(
        max_length=1024,
        pattern=_said(
            rf"^https?://[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:{_PORT})?(/[-A-Za-z0-9._~/]*)?$",
            "http://HOST:PORT or https://HOST:PORT, with a path or without",
        ),
    ),
]
NodeArgument = Annotated[
    str,
    Field(
        max_length=1024,
        pattern=_said(r"^--[a-z][-a-z0-9]*=[^\x00-\x1f]*$", "--OPTION=VALUE, such as --max-running=32"),
    ),
]
Timestamp = Annotated[
    str,
    Field(
        max_length=32,
        pattern=_said(
            r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z$",
            "a UTC time such as 2026-01-31T12:00:00Z",
        ),
    ),
]

_DURATION = _said(
    r"^([0-9]{1,4}h)?([0-9]{1,5}m)?([0-9]{1,6}s)?([0-9]{1,7}ms)?$", "a duration such as 500ms, 30s or 1m30s"
)
Duration = Annotated[str, Field(min_length=2, max_length=24, pattern=_DURATION)]
_UNIT_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def seconds(duration: str) -> float:
    """`1m30s` -> 90.0."""
    return sum(int(amount) * _UNIT_S[unit] for amount, unit in re.findall(r"([0-9]+)(ms|h|m|s)", duration))


@dataclass(frozen=True)
class Between:
    """Bounds of a duration: `Annotated[Duration, Between("1s", "24h")]`."""

    least: str
    most: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        bounds = f"duration(self) >= duration('{self.least}') && duration(self) <= duration('{self.most}')"
        rule = {"rule": bounds, "message": f"must be between {self.least} and {self.most}"}
        return handler(schema) | {"x-kubernetes-validations": [rule]}

    def _check(self, value: str) -> str:
        if seconds(value) < seconds(self.least):
            raise broken([("", f"{value} is below the minimum {self.least}")])
        if seconds(value) > seconds(self.most):
            raise broken([("", f"{value} is above the maximum {self.most}")])
        return value


def broken(pairs: list[tuple[str, str]]) -> PydanticCustomError:
    """The error of rules that a value breaks; each pair is (field to blame, phrase that names the value)."""
    return PydanticCustomError(BROKEN_RULE, "breaks a rule", {"pairs": pairs})


def _int_or_string(pattern: str, phrase: str) -> tuple[Any, Any]:
    """Validator and schema of Kubernetes' int-or-string; a string must match, an integer must not be negative."""
    _said(pattern, phrase)

    def check(value: object) -> int | str:
        whole = _integral(value)
        if isinstance(whole, int) and not isinstance(whole, bool) and whole >= 0:
            return whole
        if isinstance(value, str) and len(value) <= 32 and re.fullmatch(pattern, value):
            return value
        raise PydanticCustomError(NOT_A_FORM, "has the wrong form", {"phrase": phrase})

    schema = {
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "x-kubernetes-int-or-string": True,
        "pattern": pattern,
        "maxLength": 32,
        "minimum": 0,
    }
    return PlainValidator(check), WithJsonSchema(schema)


_QUANTITY = _int_or_string(
    r"^[0-9]+(\.[0-9]+)?([numkMGTPE]|[KMGTPE]i|[eE][0-9]{1,2})?$",
    "a Kubernetes quantity such as 500m, 4 or 16Gi",
)
_SHARE = _int_or_string(r"^(100|[1-9]?[0-9])%$", "a number of nodes or a percentage such as 25%")

Quantity = Annotated[int | str, *_QUANTITY]
NodesOrPercent = Annotated[int | str, *_SHARE]


def _no_nulls(value: object) -> object:
    """The API server prunes the nulls of a map, as it does those of an object."""
    if not isinstance(value, dict):
        return value
    return {key: item for key, item in value.items() if item is not None}


NullsPruned = BeforeValidator(_no_nulls)

Labels = Annotated[dict[str, Annotated[str, Field(max_length=253)]], Field(max_length=32), NullsPruned]
Annotations = Annotated[dict[str, Annotated[str, Field(max_length=4096)]], Field(max_length=32), NullsPruned]
Quantities = Annotated[dict[str, Quantity], Field(max_length=16), NullsPruned]

PreservedObject = Annotated[
    dict[str, Any],
    WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
]
"""An object whose own schema is Kubernetes' affair; the API server judges it where it is used."""


@dataclass(frozen=True)
class Rule:
    """A condition over several fields of one object.

    `broken` returns None where the rule holds, otherwise the phrase after "FIELD: ", naming value and limit.
    """

    cel: str
    message: str
    field: str
    broken: Callable[[Any], str | None]

    def schema(self) -> dict[str, str]:
        where = {"fieldPath": "." + self.field} if self.field else {}
        return {"rule": self.cel, "message": self.message} | where


class Document(BaseModel):
    """An object of the resource: camelCase names, unknown fields refused, null the same as absent."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=False,
        validate_by_alias=True,
        extra="forbid",
        strict=True,
        frozen=True,
        use_attribute_docstrings=True,
        # A field named `model` is at the heart of the resource.
        protected_namespaces=(),
    )

    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: object) -> object:
        """The API server prunes a null before it applies defaults."""
        if not isinstance(value, Mapping):
            return value
        known = {field.alias for field in cls.model_fields.values()}
        return {key: item for key, item in value.items() if item is not None or key not in known}

    @model_validator(mode="after")
    def _rules_hold(self) -> Any:
        phrases = [(rule.field, rule.broken(self)) for rule in self.rules]
        pairs = [(field, phrase) for field, phrase in phrases if phrase is not None]
        if pairs:
            raise broken(pairs)
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        made = handler.resolve_ref_schema(handler(schema))
        if cls.rules:
            made["x-kubernetes-validations"] = [rule.schema() for rule in cls.rules]
        return made


class Keyed:
    """Mark of a list whose items are told apart by `key`: a server-side apply merges it item by item."""

    def __init__(self, key: str) -> None:
        self.key = key

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        marks = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [self.key]}
        return handler(schema) | marks

    def _check(self, items: list[Any]) -> list[Any]:
        keys = [getattr(item, self.key) for item in items]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise broken([("", f"{self.key} {twice[0]!r} appears more than once")])
        return items
