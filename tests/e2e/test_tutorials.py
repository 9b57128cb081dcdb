"""The tutorials, word by word: each one's commands run in one shell, on free ports."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import documents
from drift_operator.local import ports

ROOT = documents.REPOSITORY
FOLDER = ROOT / "docs" / "tutorials"
PAGES = sorted(FOLDER.glob("*.md"))
DEADLINE_S = 170
"""Below that of the test, so that what the tutorial started is ended and its output told."""

PORTS = ("8000", "8001", "8002", "8080", "8081")


def commands(page: Path) -> str:
    """The blocks marked `sh`, as one script with other ports."""
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.M | re.S))
    for told, free in zip(PORTS, ports.free("127.0.0.1", len(PORTS)), strict=True):
        script = re.sub(rf"\b{told}\b", str(free), script)
    return script


@pytest.fixture
def laptop(tmp_path: Path) -> Path:
    """A folder that looks like the repository's, with the command on its path."""
    for name in ("examples", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    command = tmp_path / "bin" / "drift"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m drift_cli "$@"\n')
    command.chmod(0o755)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_does_what_the_page_says(page: Path, laptop: Path) -> None:
    environ = {**os.environ, "PATH": f"{laptop / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    environ |= {"PYTHONPATH": os.pathsep.join(sys.path), "XDG_RUNTIME_DIR": str(laptop)}
    script = f"set -euo pipefail\ntrap 'jobs -p | xargs -r kill' EXIT\n{commands(page)}"
    with subprocess.Popen(
        ["bash", "-c", script],
        cwd=laptop,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as shell:
        try:
            said, _ = shell.communicate(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired:
            shell.terminate()
            said, _ = shell.communicate(timeout=DEADLINE_S)
            pytest.fail(f"not done after {DEADLINE_S} s:\n{said}")
    logs = "".join(f"\n== {log.name} ==\n{log.read_text()}" for log in laptop.glob("*.log"))
    assert shell.returncode == 0, said + logs
