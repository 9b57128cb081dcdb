"""docs/install.md is true: its services are sound, its values are values, its names are there."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import yaml

import documents
import helm
from drift_operator import crd, manifests
from drift_operator.objects import service as objects

PAGE = (documents.REPOSITORY / "docs" / "install.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.M | re.S)
COMMANDS = [
    line
    for kind, block in BLOCKS
    if kind == "sh"
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("helm ")
]


@pytest.mark.parametrize("text", [block for kind, block in BLOCKS if kind == "yaml"])
def test_services_can_be_served(text: str) -> None:
    (service,) = manifests.read(text)
    assert objects.problems(service) == []


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("command", COMMANDS)
def test_helm_takes_the_values(command: str) -> None:
    words = shlex.split(command)
    settings = [f"--set={words[place + 1]}" for place, word in enumerate(words) if word == "--set"]
    done = helm.call("lint", "--strict", f"--kube-version={helm.KUBERNETES}", str(helm.CHART), *settings)
    assert done.returncode == 0, done.stdout + done.stderr


def test_values_that_are_named_exist() -> None:
    values: dict[str, Any] = yaml.safe_load((helm.CHART / "values.yaml").read_text())
    of_services = crd.schema()["properties"]["spec"]["properties"]
    named = re.findall(r"`([a-z]\w*(?:\.[a-zA-Z]\w*)+)`", PAGE)
    assert len(named) > 10
    for path in named:
        if path.endswith((".k8s.io", ".drift.ai", ".com")):
            continue
        top, *rest = path.split(".")
        assert top in values or top in of_services, path
        place = values.get(top, {})
        schema = of_services.get(top, {})
        for part in rest:
            place = place.get(part, {}) if isinstance(place, dict) and part in place else None
            schema = schema.get("properties", {}).get(part, {})
        assert place is not None or schema, path


def test_oldest_kubernetes_is_that_of_the_chart() -> None:
    chart = yaml.safe_load((helm.CHART / "Chart.yaml").read_text())
    (oldest,) = re.findall(r">=(\d+\.\d+)\.0-0", chart["kubeVersion"])
    assert f"Kubernetes {oldest} or newer" in PAGE
