"""The console of an operator on a control plane: what its page is told of a service that serves."""

from __future__ import annotations

from typing import Any

import pytest

import http_calls
from operator_bed import Scene, eventually

pytestmark = pytest.mark.cluster


def told(scene: Scene) -> dict[str, Any]:
    """Of the test's service, in full; empty while the console does not know it."""
    path = f"/console/v1/snapshot?service={scene.namespace}/chat"
    found = http_calls.get(scene.bed.operator.url, path)
    assert found.status == 200
    return found.json["service"] or {}


def states(scene: Scene) -> list[str]:
    """Of its nodes."""
    return sorted(node["state"] for node in told(scene).get("nodes", []))


def test_console_tells_of_a_service_its_nodes_and_what_came_of_them(scene: Scene) -> None:
    scene.apply(replicas=2)
    scene.until_ready(nodes=2)
    eventually(lambda: states(scene) == ["ready", "ready"])
    found = told(scene)
    assert found["model"] == "chat"
    assert found["verdict"] in ("idle", "kept")
    scene.patch(replicas=1)
    eventually(lambda: states(scene) == ["gone", "ready"])


def test_console_is_closed_to_other_names_for_it(scene: Scene) -> None:
    answer = http_calls.get(scene.bed.operator.url, "/console/", {"host": "evil.example"})
    assert answer.status == 421
