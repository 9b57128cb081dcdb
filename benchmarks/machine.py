"""What a result was measured on and with: every result file in this folder carries `describe()`."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (
    "drift-serve",
    "torch",
    "triton",
    "transformers",
    "tokenizers",
    "numpy",
    "llguidance",
    "msgspec",
    "pyzmq",
    "fastapi",
    "uvicorn",
    "aiohttp",
    "cuda-bindings",
)
ASK_TIMEOUT_S = 10.0


def describe(command: Sequence[str] | None = None) -> dict[str, object]:
    """Machine, versions, date, commit and command as JSON data, without the machine's name or its folders.

    `command` is what was run (default: this process's own command line). `commit` ends in "+changes" if the checked
    out files differ from it.
    """
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": _shown(command if command is not None else [Path(sys.executable).name, *sys.argv]),
        "commit": _commit(),
        "machine": {
            "cpu": _cpu(),
            "cores": len(os.sched_getaffinity(0)),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "gpus": _gpus(),
            "system": f"{platform.system()} {platform.release()}",
            "load_average_1m": round(os.getloadavg()[0], 2),
        },
        "versions": {"python": platform.python_version(), **_versions()},
    }


def _shown(command: Sequence[str]) -> str:
    """Paths inside the repository relative to it, others by their last part."""
    words = []
    for word in command:
        path = Path(word)
        if path.is_absolute():
            word = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name
        words.append(word)
    return shlex.join(words)


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine()
    )


def _gpus() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    query = "--query-gpu=name,memory.total,driver_version"
    return _ask(["nvidia-smi", query, "--format=csv,noheader"]).splitlines()


def _commit() -> str:
    commit = _ask(["git", "rev-parse", "--short=12", "HEAD"])
    changed = _ask(["git", "status", "--porcelain", "--untracked-files=no"])
    return commit + "+changes" if commit and changed else commit or "unknown"


def _ask(command: Sequence[str]) -> str:
    try:
        answer = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=ASK_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""
