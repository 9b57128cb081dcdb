"""What surrounds the code: Makefile, requirements, changelog, licence, and nothing of one machine."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

EXTRAS = {
    "run": ["engine", "gpu", "plot", "router", "tracing"],
    "engine": ["engine", "gpu", "tracing"],
    "router": ["router", "tracing"],
    "operator": ["operator"],
    "dev": list(PROJECT["optional-dependencies"]),
}
"""Of each file of pins, those that it has."""


def pins(name: str) -> dict[str, set[Version]]:
    """Versions by package; a package may have several, for different Python versions."""
    found: dict[str, set[Version]] = {}
    for package, version in re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\\n]+)", requirements(name), re.M):
        found.setdefault(canonicalize_name(package), set()).add(Version(version))
    return found


def requirements(name: str) -> str:
    return (ROOT / "requirements" / f"{name}.txt").read_text()


def wishes(extras: list[str]) -> list[Requirement]:
    optional = PROJECT["optional-dependencies"]
    return [
        Requirement(line)
        for line in [*PROJECT["dependencies"], *(line for extra in extras for line in optional[extra])]
    ]


def text_files() -> Iterator[Path]:
    """Everything that is ours: caches hide behind a dot."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [
            name for name in folders if name != "dist" and (name == ".ci" or not name.startswith("."))
        ]
        for name in names:
            path = Path(folder, name)
            if path.suffix in {".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".json", ".in", ""}:
                yield path


# requirements -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*EXTRAS, "tools", "clients", "routers"])
def test_every_requirement_has_hashes(name: str) -> None:
    blocks = re.split(r"\n(?=[a-z0-9])", requirements(name).partition("\n#    make requirements\n")[2])
    assert blocks
    for block in blocks:
        assert re.match(r"[a-z0-9._-]+==\S+", block), block
        assert "--hash=sha256:" in block, block


@pytest.mark.parametrize("path", ["requirements", ".ci", "Makefile"])
def test_no_file_names_where_packages_come_from(path: str) -> None:
    files = [ROOT / path] if (ROOT / path).is_file() else list((ROOT / path).iterdir())
    for file in files:
        text = file.read_text().replace("http://127.0.0.1", "").replace("--no-emit-index-url", "")
        assert "://" not in text, file
        assert not re.search(r"--(extra-)?index|--find-links", text), file


@pytest.mark.parametrize("name", EXTRAS)
def test_pins_satisfy_the_project(name: str) -> None:
    """Fails when pyproject.toml was changed without `make requirements`."""
    pinned = pins(name)
    for wish in wishes(EXTRAS[name]):
        versions = pinned.get(canonicalize_name(wish.name))
        assert versions, f"requirements/{name}.txt lacks {wish.name}: run `make requirements`"
        assert all(version in wish.specifier for version in versions), f"{wish}: pinned {versions}"


def test_all_pins_agree() -> None:
    """Otherwise `make run` after `make test` would reinstall."""
    dev = pins("dev")
    for name in ("run", "engine", "router", "operator", "tools"):
        shared = {package: versions for package, versions in pins(name).items() if package in dev}
        assert shared == {package: dev[package] for package in shared}


def test_run_needs_no_developer_tools() -> None:
    only_dev = {"pytest", "hypothesis", "mypy", "ruff", "openai", "transformers", "uv"}
    assert not only_dev & pins("run").keys()


# Makefile ---------------------------------------------------------------------------------------------------


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Make without what an outer make hands down."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_help_is_the_default_and_lists_every_target() -> None:
    shown = make()
    assert shown.returncode == 0, shown.stderr
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert phony
    assert set(re.findall(r"^  make ([\w-]+)", shown.stdout, re.M)) == set(phony.group(1).split())


@pytest.mark.parametrize("interpreter", ["no-such-python", "false"])
def test_an_unusable_interpreter_is_named_with_the_remedy(interpreter: str, tmp_path: Path) -> None:
    tried = make("setup", f"PYTHON={interpreter}", f"VENV={tmp_path / 'venv'}")
    assert tried.returncode != 0
    assert f"'{interpreter}' is older or missing" in tried.stderr
    assert "apt-get install python3 python3-venv" in tried.stderr
    assert not (tmp_path / "venv").exists()


# words ------------------------------------------------------------------------------------------------------


def test_changelog_tells_of_this_version() -> None:
    latest = re.search(r"^## \[?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert latest
    assert latest.group(1) == PROJECT["version"]


def test_licence_is_there() -> None:
    assert "Apache License" in (ROOT / PROJECT["license-files"][0]).read_text()
    assert PROJECT["license"] == "Apache-2.0"


def test_no_file_names_a_folder_of_one_machine() -> None:
    pattern = re.compile(r"(?<![\w.])/(?:work|root|home/\w+|Users/\w+)/\w")
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in text_files()
        if path != Path(__file__)
        for match in pattern.finditer(path.read_text(errors="replace"))
    ]
    assert found == []
