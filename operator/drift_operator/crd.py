"""The CustomResourceDefinition, made from the pydantic types: `python -m drift_operator.crd > crds/...yaml`.

pydantic's JSON schema is rewritten to what Kubernetes calls structural: no references, no alternatives of types, no
titles, defaults for objects too, exact bounds. A test keeps `crds/driftservices.drift.ai.yaml` equal to `render()`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import yaml

from drift_operator import driftservice
from drift_operator.driftservice import DriftService

PLURAL = "driftservices"

Schema = dict[str, Any]


def _structural(node: Any, definitions: Mapping[str, Any]) -> Any:
    """One pydantic schema node, its references resolved and its JSON-schema-only keys gone."""
    if isinstance(node, list):
        return [_structural(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    node = dict(node)
    while "$ref" in node:
        target = definitions[node.pop("$ref").rsplit("/", 1)[1]]
        node = {**target, **node}
    choices = [choice for choice in node.get("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) == 1 and "x-kubernetes-int-or-string" not in node:
        del node["anyOf"]  # X | None: absent and null are the same
        return _structural({**choices[0], **node}, definitions)
    node.pop("title", None)
    if node.get("default", ...) is None:
        del node["default"]
    for ours, theirs in (("ge", "minimum"), ("le", "maximum")):  # pydantic's names behind a validator of ours
        if ours in node:
            node[theirs] = node.pop(ours)
    if "const" in node:
        node["enum"] = [node.pop("const")]
    if "description" in node:
        node["description"] = " ".join(node["description"].split())
    if node.get("additionalProperties") in (False, True):
        del node["additionalProperties"]
    if "properties" in node:
        node["properties"] = {
            name: _structural(item, definitions) for name, item in node["properties"].items()
        }
    for key in ("items", "additionalProperties", "anyOf"):
        if key in node:
            node[key] = _structural(node[key], definitions)
    return node


def schema() -> Schema:
    """The resource's structural schema."""
    document = DriftService.model_json_schema(by_alias=True, mode="validation")
    made: Schema = _structural(document, document["$defs"])
    made.pop("$defs")
    properties = made["properties"]
    for name in ("apiVersion", "kind"):
        properties[name] = {"type": "string"}  # the API server checks them by the path they came in by
    properties["metadata"] = {"type": "object"}
    made["required"] = ["spec"]
    made["x-kubernetes-validations"] = [
        {
            "rule": f"size(self.metadata.name) <= {driftservice.NAME_CHARACTERS}",
            "message": f"metadata.name must have at most {driftservice.NAME_CHARACTERS} characters",
        },
        {
            "rule": "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            "message": "metadata.name must consist of lower-case letters, digits and '-' and begin with a letter",
        },
    ]
    return made


def _column(name: str, kind: str, path: str, what: str, *, wide: bool = False) -> dict[str, Any]:
    column = {"name": name, "type": kind, "jsonPath": path, "description": what}
    return column | ({"priority": 1} if wide else {})


def _condition(name: str) -> str:
    return f'.status.conditions[?(@.type=="{name}")].status'


COLUMNS = [
    _column("Ready", "string", _condition("Ready"), "Requests are answered."),
    _column("SLO met", "string", _condition("SLOMet"), "Both halves of the promise are kept."),
    _column("Replicas", "integer", ".status.readyReplicas", "Nodes that are ready."),
    _column(
        "TTFT", "number", ".status.slo.ttft.attainment", "Share of requests in time with the first token."
    ),
    _column("TBT", "number", ".status.slo.tbt.attainment", "Share of requests in time with every token."),
    _column("Decode SMs", "string", ".status.decodeSMs", "What decode gets of each GPU."),
    _column("TTFT ms", "integer", ".spec.slo.ttft.targetMs", "Promised time to first token.", wide=True),
    _column("TBT ms", "integer", ".spec.slo.tbt.targetMs", "Promised time between tokens.", wide=True),
    _column("Mode", "string", ".spec.multiplexing.mode", "How GPUs are shared.", wide=True),
    _column("Model", "string", ".spec.model.uri", "What is served.", wide=True),
    _column("URL", "string", ".status.url", "Where it is served.", wide=True),
    _column("Age", "date", ".metadata.creationTimestamp", "Time since the service was made."),
]


def build() -> dict[str, Any]:
    """The whole CustomResourceDefinition."""
    version = {
        "name": driftservice.VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema()},
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                # An HPA needs the selector even for external metrics.
                "labelSelectorPath": ".status.selector",
            },
        },
        "additionalPrinterColumns": COLUMNS,
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{driftservice.GROUP}"},
        "spec": {
            "group": driftservice.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": driftservice.KIND,
                "listKind": f"{driftservice.KIND}List",
                "plural": PLURAL,
                "singular": "driftservice",
                "shortNames": ["drs"],
                "categories": ["all", "drift"],
            },
            "versions": [version],
        },
    }


def render() -> str:
    """The file's text."""

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:  # the API server's own tools print none either
            return True

    text = yaml.dump(build(), Dumper=Dumper, sort_keys=False, width=110, allow_unicode=True)
    return "# Made by `python -m drift_operator.crd` from operator/drift_operator; do not edit.\n" + str(text)


if __name__ == "__main__":
    sys.stdout.write(render())
