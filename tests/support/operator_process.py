"""The operator in a process of its own, as a pod starts it, against whatever control plane a kubeconfig names."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

import http_calls
from drift_operator import options
from drift_operator.options import OperatorOptions

START_S = 60.0
STOP_S = 20.0
LOOK_S = 0.05

ENGINE_IMAGE, ROUTER_IMAGE = "drift-engine:test", "drift-router:test"


class OperatorProcess:
    """Started by `start`; may be killed and started again."""

    def __init__(self, kubeconfig: Path, folder: Path, **asked: Any) -> None:
        """`folder` takes its log. `asked`: fields of OperatorOptions."""
        given: dict[str, Any] = {
            "engine_image": ENGINE_IMAGE,
            "router_image": ROUTER_IMAGE,
            "host": "127.0.0.1",
            "port": 0,
        }
        self.options = OperatorOptions(**(given | asked))
        self.log_file = folder / f"{self.options.identity}.log"
        self._kubeconfig = kubeconfig
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        self._pids: list[int] = []

    def start(self, *, ready: bool = True) -> None:
        """`ready`: waits until it says so."""
        assert not self.running, "it runs"
        self._log_start = self.log_file.stat().st_size if self.log_file.exists() else 0
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "drift_operator", "--options", options.dump(self.options)],
                stdout=log,
                stderr=log,
                env={**os.environ, "KUBECONFIG": str(self._kubeconfig), "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )
        self._pids.append(self._process.pid)
        if ready:
            self.until_ready()

    def until_ready(self) -> None:
        """Raises TimeoutError, or AssertionError where it ended instead; both with its log."""
        deadline_s = time.monotonic() + START_S
        while time.monotonic() < deadline_s:
            assert self._process is not None
            assert self._process.poll() is None, f"it ended with {self._process.returncode}: {self.log}"
            with contextlib.suppress(OSError, LookupError):
                if http_calls.get(self.url, "/readyz").status == 200:
                    return
            time.sleep(LOOK_S)
        raise TimeoutError(f"not ready within {START_S:g} s: {self.log}")

    @property
    def url(self) -> str:
        """Of health, metrics and JSON. Raises LookupError as long as it does not listen."""
        for line in self.log.splitlines():
            with contextlib.suppress(ValueError):
                said = json.loads(line)
                if said.get("event") == "listening":
                    return f"http://127.0.0.1:{said['port']}"
        raise LookupError("it does not listen yet")

    @property
    def log(self) -> str:
        """Since its last start."""
        if not self.log_file.exists():
            return ""
        return self.log_file.read_bytes()[self._log_start :].decode(errors="replace")

    @property
    def events(self) -> list[dict[str, Any]]:
        """The lines of its log that are JSON, of all starts."""
        found = []
        for line in self.log_file.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return found

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def rss_bytes(self) -> int:
        return int(self._psutil.memory_info().rss)

    @property
    def cpu_s(self) -> float:
        """Used since its start."""
        used = self._psutil.cpu_times()
        return float(used.user + used.system)

    @property
    def _psutil(self) -> psutil.Process:
        assert self._process is not None
        return psutil.Process(self._process.pid)

    def stop(self) -> int:
        """SIGTERM. Its exit status; raises TimeoutExpired."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._ended()

    def kill(self) -> None:
        """SIGKILL: it has no time for anything."""
        assert self._process is not None
        self._process.kill()
        self._ended()

    def restart(self) -> None:
        self.kill()
        self.start()

    def pause(self) -> None:
        """Hangs it, as a machine does that is out of memory."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _ended(self) -> int:
        assert self._process is not None
        status = self._process.wait(STOP_S)
        self._process = None
        return status

    def close(self) -> None:
        """Nothing of it is left: it had a session of its own, so children can be told by it."""
        if self._process is not None:
            self._process.kill()
            self._ended()
        left = [process for process in psutil.process_iter() if _session(process) in self._pids]
        assert not left, f"the operator left processes behind: {left}"


@contextlib.contextmanager
def operator(kubeconfig: Path, folder: Path, **asked: Any) -> Iterator[OperatorProcess]:
    """One that is ready."""
    process = OperatorProcess(kubeconfig, folder, **asked)
    try:
        process.start()
        yield process
    finally:
        process.close()


def _session(process: psutil.Process) -> int:
    try:
        return os.getsid(process.pid)
    except (ProcessLookupError, psutil.Error):
        return 0
