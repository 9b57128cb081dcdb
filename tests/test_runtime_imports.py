"""What `make run` and the images install suffices: every module that serves loads where all else is missing."""

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
package, blocked, left_out = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
sys.modules.update(dict.fromkeys(blocked))  # importing one raises ModuleNotFoundError
root = importlib.import_module(package)
for module in pkgutil.walk_packages(root.__path__, package + "."):
    if not module.name.endswith("__main__") and module.name.split(".")[1] not in left_out:
        importlib.import_module(module.name)
"""


def pinned(name: str) -> set[str]:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    return {canonicalize_name(package) for package in re.findall(r"^([\w.-]+)==", text, re.M)}


CLUSTER = ("cluster", "doors", "handlers", "installing", "process", "smoke")
"""Parts of the operator that a cluster needs and `drift up` does not."""


@pytest.mark.parametrize(
    ("package", "requirements", "left_out"),
    [
        ("drift_cli", "run", ()),
        ("drift_operator", "run", CLUSTER),
        ("drift_operator", "operator", ()),
        ("drift_router", "run", ()),
        ("drift_router", "router", ()),
        ("drift_engine", "run", ()),
        ("drift_engine", "engine", ("bench",)),  # its drawings are the command line's
        ("drift_kernels", "run", ()),
    ],
)
def test_all_modules_load_with_these_requirements_alone(
    package: str, requirements: str, left_out: tuple[str, ...]
) -> None:
    lacking = pinned("dev") - pinned(requirements)
    blocked = sorted(
        module
        for module, distributions in importlib.metadata.packages_distributions().items()
        if all(canonicalize_name(distribution) in lacking for distribution in distributions)
    )
    assert "transformers" in blocked
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, package, json.dumps(blocked), json.dumps(left_out)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
