"""What tests of supervisors start, a stand-in node that needs no engine, and who hears of it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

import documents
from drift_engine import options
from drift_operator.local import ports
from drift_operator.local.children import Launch, Loading

SUPPORT = documents.REPOSITORY / "tests" / "support"


class Listener:
    """Remembers what it heard, and does something when all is ready."""

    def __init__(self, when_ready: Callable[[], None] = lambda: None) -> None:
        self.lines: list[str] = []
        self.labelled: list[tuple[str, str]] = []
        self.stages: list[Loading] = []
        self.heard: list[str] = []
        self._when_ready = when_ready

    def log(self, label: str, line: str) -> None:
        self.lines.append(line)
        self.labelled.append((label, line))

    def loading(self, label: str, progress: Loading) -> None:
        self.stages.append(progress)

    def ready(self) -> None:
        self.heard.append("ready")
        self._when_ready()

    def stopping(self) -> None:
        self.heard.append("stopping")

    def pids(self, word: str) -> list[int]:
        """Of lines such as `stand-in 123 serves`, in order."""
        words = [line.split() for line in self.lines]
        return [int(pid) for first, pid, *_ in words if first == word and pid.isdigit()]

    def pid(self, word: str) -> int:
        (pid,) = self.pids(word)
        return pid


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def launch(behaviour: str, drain_timeout_s: float = 5.0, label: str = "") -> Launch:
    port = ports.free("127.0.0.1")[0]
    asked = options.NodeOptions(model="embedded://none", port=port)
    return Launch(
        argv=(sys.executable, "-m", "stand_in_node", "--options", options.dump(asked)),
        variables={
            "STAND_IN": behaviour,
            "PYTHONPATH": os.pathsep.join([str(SUPPORT), *filter(None, sys.path)]),
        },
        host="127.0.0.1",
        port=port,
        drain_timeout_s=drain_timeout_s,
        name=f"node {label}" if label else "the node",
        label=label,
    )
