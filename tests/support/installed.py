"""Drift as a user installs it: the chart on a cluster with a node, and services of the shipped small model.

with installed.chart(cluster) as release: ...
service = installed.service(kubectl, "demo", replicas=2)
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import yaml

import drift_images
import helm
from clusters import Cluster
from documents import REPOSITORY
from kubectl import Kubectl, until

NAMESPACE = "drift-system"
READY_S = 90.0
"""For a service of the small model to be ready, once the images are there."""

INSTALL_S = 240.0
"""For the chart's Job and the operator to come up, where tests of other things run beside."""

EXAMPLE: dict[str, Any] = yaml.safe_load((REPOSITORY / "examples" / "driftservice.yaml").read_text())


@contextlib.contextmanager
def chart(cluster: Cluster) -> Iterator[Kubectl]:
    """Installed until the test ends, then uninstalled. kubectl is in the operator's namespace."""
    image = {"registry": "localhost", "tag": drift_images.TAG, "pullPolicy": "Never"}
    spec = {"model": EXAMPLE["spec"]["model"], "engine": document("any")["spec"]["engine"]}
    values = {"image": image, "test": {"spec": spec}}
    install = ("install", "drift", str(helm.CHART), f"--namespace={NAMESPACE}", "--create-namespace")
    wait = ("--wait", f"--timeout={INSTALL_S:.0f}s")
    done = helm.call(*install, *wait, values=values, kubeconfig=cluster.kubeconfig, timeout_s=INSTALL_S + 20)
    assert done.returncode == 0, done.stderr
    try:
        yield cluster.kubectl.within(NAMESPACE)
    finally:
        helm.call("uninstall", "drift", f"--namespace={NAMESPACE}", "--wait", kubeconfig=cluster.kubeconfig)


def document(name: str, **spec: Any) -> dict[str, Any]:
    """The example, with other fields of its spec, on the images of this run."""
    made = copy.deepcopy(EXAMPLE)
    made["metadata"]["name"] = name
    engine = {
        "device": "cpu",
        # So that several fit beside the control plane on two cores.
        "resources": {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "3Gi"}},
        "podTemplate": drift_images.engine_pod_template(),
    }
    made["spec"] |= {"engine": engine | spec.pop("engine", {})} | spec
    return made


def status(kubectl: Kubectl, name: str) -> dict[str, Any]:
    found = kubectl.get("driftservice", name)
    return (found or {}).get("status") or {}


def condition(kubectl: Kubectl, name: str, kind: str) -> dict[str, Any]:
    """Of the present spec; empty before it was looked at."""
    found = kubectl.get("driftservice", name)
    if found is None or status(kubectl, name).get("observedGeneration") != found["metadata"]["generation"]:
        return {}
    all_of_them = found.get("status", {}).get("conditions") or ()
    return next((each for each in all_of_them if each["type"] == kind), {})


def ready(kubectl: Kubectl, name: str, deadline_s: float = READY_S) -> None:
    """Returns when it is. Otherwise the error says why it is not."""
    try:
        until(
            lambda: condition(kubectl, name, "Ready").get("status") == "True",
            f"DriftService {name} to be ready",
            deadline_s,
        )
    except TimeoutError as error:
        said = [
            f"{each['type']}={each['status']}: {each['message']}"
            for each in status(kubectl, name).get("conditions", ())
        ]
        raise TimeoutError("\n".join([str(error), *said])) from error


def pods(kubectl: Kubectl, name: str, component: str) -> list[dict[str, Any]]:
    """Those that are not going."""
    selector = f"app.kubernetes.io/instance={name},app.kubernetes.io/component={component}"
    return [pod for pod in kubectl.list("pods", selector) if not pod["metadata"].get("deletionTimestamp")]
