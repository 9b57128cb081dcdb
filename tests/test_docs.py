"""What the documentation names exists: files, functions, modules, make targets, commands, and links between pages.

In backticks or in a code block a page may write a path from the root or from a source root, with or without what the
file defines (`engine/drift_engine/wire.py`, `drift_engine/wire.py:encode`), or a dotted name
(`drift_engine.wire.encode`). Lines of blocks that begin with `make` or `drift` are commands.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from drift_cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
SOURCE_ROOTS = ("", "cli", "operator", "router", "engine", "kernels", "models")
OURS = {
    path.name for path in ROOT.iterdir() if path.is_dir() and (path.name == ".ci" or path.name[0] != ".")
} | {path.name for root in SOURCE_ROOTS[1:] for path in (ROOT / root).iterdir()}
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/**/*.md", "examples/**/*.md")
    for page in ROOT.glob(pattern)
)
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


@pytest.fixture(params=PAGES, ids=NAMES)
def page(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def code_of(page: Path) -> list[str]:
    """Texts in backticks, and the lines of blocks."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    return re.findall(r"`([^`\n]+)`", prose) + block_lines_of(page)


def block_lines_of(page: Path) -> list[str]:
    """Lines of fenced and of indented blocks: what a reader types or sees."""
    text = page.read_text()
    fenced = re.findall(r"^```[a-z]*\n(.*?)^```", text, re.M | re.S)
    indented = re.findall(r"(?<=\n\n)(?: {4}.*\n?)+", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    return [line.strip() for block in fenced + indented for line in block.splitlines()]


def test_files_and_functions_exist(page: Path) -> None:
    missing = []
    for path, name in (found for text in code_of(page) for found in paths_in(text)):
        files = [ROOT / root / path for root in SOURCE_ROOTS if (ROOT / root / path).exists()]
        if not files or (name and not defines(files[0], tuple(name.split(".")))):
            missing.append(f"{path}:{name}")
    assert missing == []


def test_modules_exist(page: Path) -> None:
    dotted = [
        name
        for text in code_of(page)
        for name in re.findall(r"(?<![\w/.-])(drift_\w+(?:\.\w+)+)", text)
        if not name.endswith((".py", ".yaml"))
    ]
    assert [name for name in dotted if not resolves(name.split("."))] == []


def test_make_targets_and_commands_exist(page: Path) -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M)
    for line in block_lines_of(page):
        if match := re.match(r"make ([a-z]+)\b", line):
            assert match.group(1) in targets, line
        if match := re.match(r"(?:\.venv/bin/)?drift ([a-z]+)\b", line):
            assert match.group(1) in COMMANDS, line


def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def paths_in(text: str) -> list[tuple[str, str]]:
    """Paths of ours, each with the name after its colon or an empty string. Capitals are placeholders."""
    found = re.findall(r"(?<![\w./~-])([\w.-]+(?:/[\w.-]+)+/?)(?::([A-Za-z_][\w.]*))?", text)
    return [
        (path, name)
        for path, name in found
        if path.split("/")[0] in OURS and not re.search(r"\b[A-Z]{4,}\b(?!\.md)", path)
    ]


def resolves(parts: list[str]) -> bool:
    """Whether a dotted name is a package, a module, or something that a module defines."""
    for count in range(len(parts), 0, -1):
        for root in SOURCE_ROOTS[1:]:
            base = (ROOT / root).joinpath(*parts[:count])
            for file in (base.with_name(base.name + ".py"), base / "__init__.py"):
                if file.is_file():
                    return count == len(parts) or defines(file, tuple(parts[count:]))
    return False


@cache
def defines(file: Path, names: tuple[str, ...]) -> bool:
    """Whether a module's source defines or imports a name, or a class of it a member."""
    body: list[ast.stmt] = ast.parse(file.read_text()).body
    for name in names:
        for statement in body:
            if name in names_of(statement):
                body = statement.body if isinstance(statement, ast.ClassDef) else []
                break
        else:
            return False
    return True


def names_of(statement: ast.stmt) -> list[str]:
    match statement:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return [statement.name]
        case ast.Assign():
            return [target.id for target in statement.targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
        case ast.ImportFrom():
            return [alias.asname or alias.name for alias in statement.names]
    return []
