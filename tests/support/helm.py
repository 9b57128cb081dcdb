"""Helm, as it is built with the test cluster, and the chart as it renders it: plain data."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

import clusters
import documents

CHART = documents.REPOSITORY / "charts" / "drift"
KUBERNETES = "1.34.0"

Values = Mapping[str, Any]
Object = dict[str, Any]


def call(
    *arguments: str, values: Values | None = None, kubeconfig: Path | None = None, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    """Helm with values on its standard input, before a cluster or, without a kubeconfig, before none."""
    given = ["--values", "-"] if values is not None else []
    return subprocess.run(
        [str(clusters.binaries() / "helm"), *arguments, *given],
        env=os.environ | {"KUBECONFIG": str(kubeconfig or os.devnull)},
        input=yaml.safe_dump(dict(values)) if values is not None else None,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def lint(values: Values) -> subprocess.CompletedProcess[str]:
    return call("lint", "--strict", "--quiet", f"--kube-version={KUBERNETES}", str(CHART), values=values)


def render(
    values: Values | None = None,
    *,
    namespace: str = "drift-system",
    kinds: Sequence[str] = (),
    hooks: bool = True,
) -> list[Object]:
    """The objects of a release `drift`; `kinds` are those that the cluster knows beyond Kubernetes' own."""
    done = call(
        *("template", "drift", str(CHART), f"--namespace={namespace}", f"--kube-version={KUBERNETES}"),
        *(f"--api-versions={kind}" for kind in kinds),
        *(() if hooks else ("--no-hooks",)),
        values=values or {},
    )
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def find(objects: Sequence[Object], kind: str, name: str | None = None) -> Object:
    """The only one of its kind, or the one of that name."""
    (found,) = [item for item in objects if item["kind"] == kind and name in (None, item["metadata"]["name"])]
    return found


def pods(objects: Sequence[Object]) -> dict[str, Object]:
    """Pod specs by the names of the objects that have them."""
    found = {}
    for item in objects:
        match item["kind"]:
            case "Pod":
                found[item["metadata"]["name"]] = item["spec"]
            case "Deployment" | "Job":
                found[item["metadata"]["name"]] = item["spec"]["template"]["spec"]
    return found
