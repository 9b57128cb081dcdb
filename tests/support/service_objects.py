"""The objects that a service of given spec becomes, for tests to look at."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import documents
from drift_operator import manifests
from drift_operator.driftservice import DriftService
from drift_operator.objects import kinds, service
from drift_operator.objects.facts import Facts
from drift_operator.objects.metadata import Manifest
from drift_operator.options import OperatorOptions

OPTIONS = OperatorOptions(engine_image="engine:1", router_image="router:1", own_namespace="drift-system")

FACTS = Facts(
    uid="0d1e8d7c-8f9a-4c5e-9a57-0f6c1f0a9a11",
    token_sha256="5e" * 32,
    node_replicas=3,
    router_replicas=2,
    kinds=frozenset(map(str, kinds.OPTIONAL)),
)


def parsed(name: str = "demo", **spec: Any) -> DriftService:
    document = documents.minimal(**spec)
    document["metadata"] |= {"name": name, "namespace": "team"}
    return manifests.parse(document)


def built(name: str = "demo", *, facts: Facts = FACTS, **spec: Any) -> list[Manifest]:
    return service.build(parsed(name, **spec), OPTIONS, facts)


def one(kind: str, name: str, *, facts: Facts = FACTS, **spec: Any) -> Manifest:
    """The only object of that kind and name."""
    (found,) = (
        made
        for made in built(facts=facts, **spec)
        if (made["kind"], made["metadata"]["name"]) == (kind, name)
    )
    return found


def pod(component: str, *, facts: Facts = FACTS, **spec: Any) -> Manifest:
    """The pod template's spec of node or router."""
    template: Manifest = one("Deployment", f"demo-{component}", facts=facts, **spec)["spec"]["template"]
    found: Manifest = template["spec"]
    return found


def container(component: str, **spec: Any) -> Manifest:
    found: Manifest = pod(component, **spec)["containers"][0]
    return found


def variables(made: Manifest) -> dict[str, Any]:
    """A container's, by name: the value, or where it comes from."""
    return {env["name"]: env.get("value", env.get("valueFrom")) for env in made["env"]}


def options_text(made: Manifest, references: dict[str, str]) -> str:
    """A container's options after Kubernetes has put its variables in."""
    flag, text = made["args"]
    assert flag == "--options"
    # As in Kubernetes: $$ is $, $(NAME) is the variable's value.
    said, rest = "", text
    while rest:
        if rest.startswith("$$"):
            said, rest = said + "$", rest[2:]
        elif rest.startswith("$("):
            name, _, rest = rest[2:].partition(")")
            said += references[name]
        else:
            said, rest = said + rest[0], rest[1:]
    return said


def kinds_of(objects: list[Manifest]) -> set[str]:
    return {made["kind"] for made in objects}


def without(*missing: kinds.Kind) -> Facts:
    """Of a cluster that lacks these kinds."""
    return dataclasses.replace(FACTS, kinds=FACTS.kinds - set(map(str, missing)))


def promise_text(**spec: Any) -> str:
    text: str = one("ConfigMap", "demo-promise", **spec)["data"]["promise"]
    assert json.loads(text)
    return text
