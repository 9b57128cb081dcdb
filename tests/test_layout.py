"""The repository keeps its shape: source roots, module names, layers, examples."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
PACKAGES = [REPOSITORY / path for path in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]]
ROOTS = sorted({package.parent for package in PACKAGES})
MODULES = sorted(module for package in PACKAGES for module in package.rglob("*.py"))

# A package registry's host in a lock file ties every user to it.
LOCK_NAMES = {"uv.lock", "poetry.lock", "Pipfile.lock", "pdm.lock", "package-lock.json", "yarn.lock"}
DUNDERS = {"__init__", "__main__"}


def committed() -> list[Path]:
    """Every file that is, or would be, under version control."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return [REPOSITORY / name for name in listed.stdout.split("\0") if name]


@pytest.mark.parametrize("root", ROOTS, ids=lambda root: root.name)
def test_source_root_is_no_package(root: Path) -> None:
    # `operator/__init__.py` would hide the standard library's operator module.
    assert not list(root.glob("*.py"))


def test_tests_are_no_package() -> None:
    assert not list((REPOSITORY / "tests").rglob("__init__.py"))


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_package_is_typed_and_says_what_it_is(package: Path) -> None:
    assert (package / "py.typed").is_file()
    assert (package / "__init__.py").read_text().startswith('"""')


def test_no_module_is_named_like_the_standard_library() -> None:
    names = {module: module.stem for module in MODULES if module.stem not in DUNDERS}
    names |= {folder: folder.name for package in PACKAGES for folder in package.rglob("*") if folder.is_dir()}
    assert not [str(path) for path, name in names.items() if name in sys.stdlib_module_names]


def test_stdlib_operator_stays_itself() -> None:
    import operator

    assert operator.itemgetter(0)("drift") == "d"
    assert REPOSITORY not in Path(operator.__file__).parents


def test_layers_hold() -> None:
    program = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command; lint_imports_command()",
    ]
    done = subprocess.run(
        [*program, "--no-cache"], cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_lock_file_names_an_address_and_nothing_an_index() -> None:
    files = committed()
    locks = [file for file in files if file.name in LOCK_NAMES]
    assert not [file for file in locks if "://" in file.read_text()]
    for file in files:
        if file.suffix == ".txt" and "requirements" in str(file.relative_to(REPOSITORY)):
            addressed = re.findall(
                r"^.*(?:index-url|find-links|https?://).*$", file.read_text(), re.MULTILINE
            )
            assert not addressed, f"{file}: {addressed}"
