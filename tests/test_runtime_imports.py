"""What `make run` installs suffices: every module that serves loads where the developers' tools are missing."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROGRAM = """
import importlib, json, pkgutil, sys
package, blocked = sys.argv[1], json.loads(sys.argv[2])
sys.modules.update(dict.fromkeys(blocked))  # importing one raises ModuleNotFoundError
root = importlib.import_module(package)
for module in pkgutil.walk_packages(root.__path__, package + "."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""


def pinned(name: str) -> set[str]:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    return {canonicalize_name(package) for package in re.findall(r"^([\w.-]+)==", text, re.M)}


@pytest.mark.parametrize("package", ["drift_cli", "drift_operator", "drift_engine", "drift_kernels"])
def test_all_modules_load_with_run_requirements_alone(package: str) -> None:
    only_dev = pinned("dev") - pinned("run")
    blocked = sorted(
        module
        for module, distributions in importlib.metadata.packages_distributions().items()
        if all(canonicalize_name(distribution) in only_dev for distribution in distributions)
    )
    assert "transformers" in blocked
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, package, json.dumps(blocked)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
