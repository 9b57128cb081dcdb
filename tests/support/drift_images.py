"""Drift's images, built from this checkout by `tests/cluster/bed/images`.

`DRIFT_TEST_IMAGES=full` takes the engine's image as it is shipped, with 5 GB of packages; `quick`, for work on
anything but that image, has its sources only, and pods mount the packages of the interpreter that runs the tests.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import clusters
import documents

COMPONENTS = ("operator", "router", "engine")
KIND: Literal["quick", "full"] = (
    "full" if clusters.ENVIRONMENT.get("DRIFT_TEST_IMAGES") == "full" else "quick"
)
TAG = f"test-{hashlib.sha256(str(documents.REPOSITORY).encode()).hexdigest()[:8]}"
"""Of this checkout: another one builds its own at the same time."""
PYTHON = (3, 11)
"""Of the base image that stands in for Python's own: Debian 12's."""
BUILD_S = 1800
LOAD_S = 500
"""The full engine: 43 s to write the archive and 85 s to import it, on two idle cores."""


def name(component: str) -> str:
    """For a pod, whose imagePullPolicy is Never."""
    return f"localhost/drift-{component}:{TAG}"


def run(*arguments: str, timeout_s: float = BUILD_S, variables: Mapping[str, str] | None = None) -> str:
    """What the script prints. Raises BedError."""
    if KIND == "quick" and sys.version_info[:2] != PYTHON:
        raise clusters.BedError(
            f"the tests run on Python {sys.version_info.major}.{sys.version_info.minor}, the images on "
            f"{PYTHON[0]}.{PYTHON[1]}, so these can't use the packages of those: set DRIFT_TEST_IMAGES=full"
        )
    told = {"DRIFT_TEST_TAG": TAG, "DRIFT_TEST_IMAGES": KIND, **(variables or {})}
    return clusters.run("images", *arguments, timeout_s=timeout_s, variables=told)


def build() -> None:
    run("build")


def load(cluster: clusters.Cluster) -> None:
    """Builds before, which takes seconds where nothing changed."""
    run("load", timeout_s=LOAD_S, variables=cluster.variables)


def configuration(component: str) -> dict[str, Any]:
    """User, labels, environment and command."""
    found: dict[str, Any] = json.loads(run("config", component))
    return found


def engine_pod_template() -> dict[str, Any]:
    """For `spec.engine.podTemplate`: what the engine's image needs of the pod that runs it."""
    if KIND == "full":
        return {}
    site = sysconfig.get_path("purelib")
    mount = {"name": "site", "mountPath": "/opt/drift/site", "readOnly": True}
    return {
        "spec": {
            "containers": [{"name": "node", "volumeMounts": [mount]}],
            "volumes": [{"name": "site", "hostPath": {"path": site, "type": "Directory"}}],
        }
    }


@contextlib.contextmanager
def files(component: str) -> Iterator[Path]:
    """The root folder of an image, read-only by convention."""
    folder = Path(run("mount", component))
    try:
        yield folder
    finally:
        run("unmount", component)
