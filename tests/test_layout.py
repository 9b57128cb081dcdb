"""The source roots stay plain folders, and no module takes a name of the standard library."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "cli": "drift_cli",
    "operator": "drift_operator",
    "engine": "drift_engine",
    "kernels": "drift_kernels",
    "models": "drift_tiny",
}


@pytest.mark.parametrize(("folder", "package"), PACKAGES.items())
def test_a_source_root_holds_one_typed_package(folder: str, package: str) -> None:
    assert not (ROOT / folder / "__init__.py").exists(), "the folder would become a package of its own"
    assert [path.parent.name for path in (ROOT / folder).glob("*/__init__.py")] == [package]
    assert (ROOT / folder / package / "py.typed").is_file()


def test_operator_is_the_standard_librarys() -> None:
    spec = importlib.util.find_spec("operator")
    assert spec is not None
    assert spec.origin is not None
    assert not Path(spec.origin).is_relative_to(ROOT / "operator")


def test_tests_are_no_packages() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_no_module_is_named_like_one_of_the_standard_library() -> None:
    # `platform.py` in a folder that ends up first on sys.path breaks every import of the real one.
    # `__main__` and `__init__` are Python's own; packages' private files can't be imported by accident.
    taken = sys.stdlib_module_names - {"__main__", "__init__"}
    clashes = [
        path.relative_to(ROOT)
        for folder in (*PACKAGES, "tests/support")
        for path in (ROOT / folder).rglob("*.py")
        if path.stem in taken
    ]
    assert clashes == []


@pytest.mark.parametrize(("folder", "package"), PACKAGES.items())
def test_every_folder_of_a_package_says_what_it_is(folder: str, package: str) -> None:
    """A missing `__init__.py` makes a namespace package, which mypy and hatchling treat differently."""
    for path in (ROOT / folder / package).rglob("*.py"):
        assert (path.parent / "__init__.py").is_file(), path.parent.relative_to(ROOT)
