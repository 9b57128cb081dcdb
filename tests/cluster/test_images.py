"""The images: small, without privileges, without what they don't need, and with a list of what is in them."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

import drift_images
from clusters import Cluster
from documents import REPOSITORY
from kubectl import Kubectl, until
from restricted_pods import ended, pod

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
SLIM = ("operator", "router")
SHIPPED = (*SLIM, "engine") if drift_images.KIND == "full" else SLIM
"""A quick run's engine is not the one that is shipped."""
SLIM_BYTES = 250 * 10**6

PACKAGES = {
    "operator": ("drift_operator",),
    "router": ("drift_router",),
    "engine": (
        *(f"drift_engine.{part}" for part in ("api", "core", "devices", "models", "node")),
        "drift_kernels",
    ),
}
"""Whose modules an image runs."""

MODULES = {"operator": "drift_operator", "router": "drift_router", "engine": "drift_engine.node"}

LOAD = """
import importlib, os, pkgutil, sys
for package in sys.argv[1:]:
    root = importlib.import_module(package)
    for module in pkgutil.walk_packages(root.__path__, package + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
        assert "torch" not in sys.modules or package.startswith(("drift_engine.", "drift_kernels")), module.name
try:
    open(root.__path__[0] + "/written", "w")
except OSError as error:
    print(os.getuid(), error.strerror)
"""


def restrict(cluster: Cluster, namespace: Kubectl) -> None:
    """From then on the API server refuses pods that don't keep to the restricted Pod Security Standard."""
    label = "pod-security.kubernetes.io/enforce=restricted"
    cluster.kubectl("label", "namespace", namespace.namespace, label)


@pytest.mark.parametrize("component", SHIPPED)
def test_image_says_what_it_is_and_gives_up_root(built_images: None, component: str) -> None:
    config = drift_images.configuration(component)["config"]
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in config["Labels"].items()}
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"][1:] == ["-m", MODULES[component]]
    assert labels["title"] == f"drift-{component}"
    assert labels["version"] == PROJECT["version"]
    assert labels["licenses"] == PROJECT["license"]
    kind = ["git", "cat-file", "-t", labels["revision"]]
    assert subprocess.run(kind, cwd=REPOSITORY, capture_output=True, check=True).stdout == b"commit\n"


@pytest.mark.parametrize("component", SLIM)
def test_operator_and_router_are_small(built_images: None, component: str, tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    drift_images.run("save", component, str(archive))
    assert archive.stat().st_size <= SLIM_BYTES


@pytest.mark.parametrize("component", SHIPPED)
def test_image_holds_what_is_pinned_and_its_list_of_contents_names_all(
    built_images: None, component: str
) -> None:
    with drift_images.files(component) as root:
        folders = [str(root / "opt/app"), *map(str, root.glob("opt/drift/lib/python3*/site-packages"))]
        installed = {
            canonicalize_name(found.metadata["Name"]): found.version
            for found in importlib.metadata.distributions(path=folders)
        }
        program = [sys.executable, str(REPOSITORY / "images" / "sbom.py"), str(root)]
        written = subprocess.run(program, capture_output=True, text=True, timeout=120, check=True).stdout
    listed = json.loads(written)
    told = {
        canonicalize_name(part["name"]): part["version"]
        for part in [listed["metadata"]["component"], *listed["components"]]
    }
    assert listed["bomFormat"] == "CycloneDX"
    assert told == installed
    pins = (REPOSITORY / "requirements" / f"{component}.txt").read_text()
    pinned = {
        (canonicalize_name(name), version)  # a package may have several, for different Python versions
        for name, version in re.findall(r"^([\w.-]+)==(\S+)", pins, re.M)
    }
    assert installed.pop(canonicalize_name(PROJECT["name"])) == PROJECT["version"]
    assert installed.items() <= pinned
    assert installed.keys() & {"pip", "pytest"} == set()
    assert ("torch" in installed) == (component == "engine")


def test_a_folder_that_is_no_image_is_refused(tmp_path: Path) -> None:
    program = [sys.executable, str(REPOSITORY / "images" / "sbom.py"), str(tmp_path)]
    tried = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert tried.returncode == 2
    assert f"{tmp_path} is no image of Drift" in tried.stderr


@pytest.mark.parametrize("component", drift_images.COMPONENTS)
def test_all_modules_load_as_nobody_from_a_read_only_root(
    cluster: Cluster, namespace: Kubectl, component: str
) -> None:
    if component in SHIPPED:
        restrict(cluster, namespace)
    python = "python3" if component == "engine" and drift_images.KIND == "quick" else "python"
    namespace.apply(pod(component, component, *PACKAGES[component], command=(python, "-c", LOAD)))
    end = until(lambda: ended(namespace, component), "the modules to load", deadline_s=240)
    said = namespace("logs", component)
    assert end == "Succeeded", said
    assert said == "65532 Read-only file system\n"


def test_operator_image_has_the_drift_command(cluster: Cluster, namespace: Kubectl) -> None:
    namespace.apply(pod("operator", "operator", "--help", command=("drift",)))
    end = until(lambda: ended(namespace, "operator"), "the command to end")
    assert end == "Succeeded", namespace("logs", "operator")


def test_a_router_serves_from_its_image(cluster: Cluster, namespace: Kubectl) -> None:
    options = {"host": "0.0.0.0", "port": 8080, "admin_host": "0.0.0.0", "admin_port": 8081}
    namespace.apply(pod("router", "router", "--options", json.dumps(options)))
    until(lambda: '"serving"' in namespace("logs", "router"), "the router to serve")


def test_an_engine_answers_from_its_image(cluster: Cluster, namespace: Kubectl) -> None:
    options = {"model": "embedded://drift-tiny", "device": "cpu", "host": "0.0.0.0"}
    namespace.apply(pod("engine", "engine", "--options", json.dumps(options)))
    until(lambda: '"ready"' in namespace("logs", "engine"), "the node to be ready", deadline_s=180)
