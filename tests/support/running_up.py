"""`drift up` as a person starts it, with nodes and a router: its output, its processes, and what its commands say."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

import real_node

DRIFT = (sys.executable, "-u", "-m", "drift_cli")


class Fleet:
    """`drift up`, whose output is read all the time."""

    program: tuple[str, ...] = DRIFT

    def __init__(self, file: Path, *arguments: str, **variables: str) -> None:
        self.environ = {**os.environ, **variables}
        self.process: subprocess.Popen[str] = subprocess.Popen(
            self.command(["-f", str(file), "--port", "0", *arguments]),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env=self.environ,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.children: list[psutil.Process] = []
        self.url = ""

    def command(self, arguments: Sequence[str]) -> list[str]:
        return [*DRIFT, "up", *arguments]

    def wait_ready(self) -> None:
        self.wait_for("Ctrl-C stops it.")
        found = re.search(r"is ready at (\S+)\n", self.said)
        assert found is not None
        self.url = found[1]
        self.children = self._living()

    @property
    def said(self) -> str:
        return "".join(self.lines)

    def wait_for(self, words: str) -> None:
        def heard() -> bool:
            assert self.process.poll() is None or words in self.said, self.said
            return words in self.said

        real_node.until(heard, f"{words!r}")

    def top(self, *arguments: str) -> str:
        return self.drift("top", *arguments)

    def drift(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self.program, *arguments],
            capture_output=True,
            text=True,
            timeout=real_node.DEADLINE_S,
            env=self.environ,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def nodes(self) -> dict[str, dict[str, Any]]:
        return {node["name"]: node for node in json.loads(self.top("--json"))["nodes"]}

    def pid_of(self, name: str) -> int:
        """Of the node's api process."""
        (pid,) = [
            child.pid
            for child in self._living()
            if "drift_engine.node" in child.cmdline() and f'"node":"{name}"' in child.cmdline()[-1]
        ]
        return pid

    def ended(self) -> int:
        """The exit code, when no process of it is left."""
        code = self.process.wait(timeout=real_node.DEADLINE_S)
        self.gone()
        self._reader.join(timeout=real_node.DEADLINE_S)
        return code

    def gone(self) -> None:
        _, alive = psutil.wait_procs(self.children, timeout=real_node.DEADLINE_S)
        assert not alive

    def kill(self) -> None:
        for child in {*self.children, *self._living()}:
            with contextlib.suppress(psutil.Error):
                child.kill()
        self.process.kill()
        self.process.wait()
        self._reader.join(timeout=real_node.DEADLINE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _living(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(iter(self.process.stdout.readline, ""))


class ClonedFleet(Fleet):
    """Of a clone of the repository: what `make run` installed there is what runs."""

    def __init__(self, clone: Path, file: Path, *arguments: str, **variables: str) -> None:
        self._clone = clone
        self.program = (str(clone / ".venv" / "bin" / "drift"),)
        super().__init__(file, *arguments, **variables)

    def command(self, arguments: Sequence[str]) -> list[str]:
        return ["make", "-C", str(self._clone), "run", f"ARGS={shlex.join(arguments)}"]


@contextlib.contextmanager
def ready(fleet: Fleet) -> Iterator[Fleet]:
    """Once it is; nothing of it is left afterwards."""
    with contextlib.ExitStack() as stack:
        stack.callback(fleet.kill)
        fleet.wait_ready()
        yield fleet


@contextlib.contextmanager
def started(file: Path, *arguments: str, **variables: str) -> Iterator[Fleet]:
    with ready(Fleet(file, *arguments, **variables)) as fleet:
        yield fleet
