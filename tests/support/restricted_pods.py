"""Pods of Drift's images that the restricted Pod Security Standard allows, with a root that can't be written to."""

from __future__ import annotations

from collections.abc import Sequence

import drift_images
from kubectl import Kubectl, Object


def pod(name: str, component: str, *arguments: str, command: Sequence[str] = ()) -> Object:
    """With the label app=NAME. In a quick run the engine's also mounts what its image lacks, which is not allowed."""
    container: Object = {
        "name": "node",
        "image": drift_images.name(component),
        "imagePullPolicy": "Never",
        "args": list(arguments),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    if command:
        container["command"] = list(command)
    volumes: list[Object] = [{"name": "tmp", "emptyDir": {}}]
    if component == "engine" and (asked := drift_images.engine_pod_template()):
        container["volumeMounts"] += asked["spec"]["containers"][0]["volumeMounts"]
        volumes += asked["spec"]["volumes"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            "volumes": volumes,
        },
    }


def python(name: str, program: str) -> Object:
    return pod(name, "operator", command=["python", "-c", program])


def web(name: str) -> tuple[Object, Object]:
    """A pod that answers 200 on port 8000, and its Service on port 80."""
    server = python(name, "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=8000)")
    ports = [{"name": "http", "port": 80, "targetPort": 8000}]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": ports},
    }
    return server, service


def phase(kubectl: Kubectl, name: str) -> str | None:
    found = kubectl.get("pod", name)
    return found["status"].get("phase") if found else None


def ended(kubectl: Kubectl, name: str) -> str | None:
    """The phase in which a pod stays, once it is in one."""
    found = phase(kubectl, name)
    return found if found in {"Succeeded", "Failed"} else None
