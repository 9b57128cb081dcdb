"""`drift up` for the length of a measurement, and `drift bench` against it."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

DRIFT = (sys.executable, "-u", "-m", "drift_cli")
READY_S = 180.0
STOP_S = 60.0


@contextlib.contextmanager
def up(file: Path, drift: Sequence[str] = DRIFT) -> Iterator[str]:
    """The URL of the service in `file`, once all its nodes are ready. `drift`: by which command it is started.

    Raises SystemExit with what it said where it does not get ready.
    """
    said = file.with_suffix(".log")
    with said.open("w") as log:
        process = subprocess.Popen(
            [*drift, "up", "-f", str(file), "--port", "0", "--log-level", "warning"],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield _ready(process, said)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ready(process: subprocess.Popen[bytes], said: Path) -> str:
    deadline_s = time.monotonic() + READY_S
    while time.monotonic() < deadline_s and process.poll() is None:
        if found := re.search(r"is ready at (\S+)\n", said.read_text()):
            return found[1]
        time.sleep(0.2)
    raise SystemExit(f"drift up is not ready within {READY_S:g} s:\n{said.read_text()}")


def bench(url: str, folder: Path, *options: str) -> dict[str, Any]:
    """What `drift bench` found; its table goes to standard error. `folder` is for the result's file. Raises
    CalledProcessError."""
    file = folder / "result.json"
    subprocess.run(
        [*DRIFT, "bench", "--url", url, *options, "--json", str(file)], stdout=sys.stderr, check=True
    )
    found: dict[str, Any] = json.loads(file.read_text())
    return found
