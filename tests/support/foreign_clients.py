"""Clients by others before a service of ours: a script of theirs makes calls and tells what came of each."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import environments
from documents import REPOSITORY

FOLDER = REPOSITORY / "tests" / "compat"
CALLS_S = 300.0
"""For all calls of a script: imports of LangChain and LiteLLM take 10 s of a processor, which others may use, too."""

OFFLINE = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else fetched when it is imported
    "LITELLM_MODE": "PRODUCTION",  # reads no .env
    "LANGSMITH_TRACING": "false",
}

Told = dict[str, Any]
"""By call: what it returned, or a dict with `raised`, the exception's class and those above it."""


def python(script: str, asked: dict[str, Any]) -> Told:
    """Calls of a script in `tests/compat/clients`."""
    return _told([environments.python("clients"), FOLDER / "clients" / script], asked)


def javascript(asked: dict[str, Any]) -> Told:
    """Calls of `tests/compat/openai_js`. It is read from stdin: so its packages are looked for where it runs."""
    source = FOLDER / "openai_js"
    command = (environments.node(), "--input-type=module", "-")
    with (source / "calls.js").open() as script:
        return _told(command, asked, cwd=environments.javascript(source), stdin=script)


def _told(
    command: Sequence[str | Path],
    asked: dict[str, Any],
    cwd: Path | None = None,
    stdin: IO[str] | None = None,
) -> Told:
    support = str(REPOSITORY / "tests" / "support")
    done = subprocess.run(
        [*command, json.dumps(asked)],
        stdin=stdin or subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=CALLS_S,
        cwd=cwd,
        env={**os.environ, **OFFLINE, "PYTHONPATH": support},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: Told = json.loads(done.stdout)
    return found
