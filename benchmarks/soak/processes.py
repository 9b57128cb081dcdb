"""Processes of a test cluster: those of a pod's containers by their control groups, the control plane's by name."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
COMMAND_S = 20.0
STOP_S = 10.0
LOOK_S = 0.05
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def control_group(machine: str, container: str, controller: str = "memory") -> Path:
    """Of a container by its id. Raises LookupError where it has ended."""
    top = CGROUPS / controller / machine
    top = top if top.is_dir() else CGROUPS / machine  # the unified hierarchy has one for all controllers
    found = next(top.rglob(container), None)
    if found is None:
        raise LookupError(f"no control group of container {container}")
    return found


def of_container(machine: str, container: str) -> list[int]:
    """Process ids; none of a container that has ended."""
    with contextlib.suppress(LookupError, OSError):
        text = (control_group(machine, container) / "cgroup.procs").read_text()
        return [int(word) for word in text.split()]
    return []


def cpu_pressure() -> float | None:
    """Share of the last 10 s in which something waited for a processor; None: this kernel does not tell."""
    try:
        words = Path("/proc/pressure/cpu").read_text().split()
    except OSError:
        return None
    return float(words[1].removeprefix("avg10=")) / 100


def rss_bytes(pid: int) -> int:
    """Resident memory; 0 of a process that has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    except (OSError, IndexError):
        return 0


def command_of(pid: int) -> list[str]:
    """Empty of a process that has ended, also where nobody has asked yet how."""
    try:
        text = Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return []
    return text.rstrip("\0").split("\0") if text else []


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """What has ended needs no signal."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def run(*command: str, keep: tuple[int, ...] = ()) -> str:
    """What it prints; it inherits the descriptors in `keep`. Raises CalledProcessError and TimeoutExpired."""
    done = subprocess.run(
        command,
        env={"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=True,
        pass_fds=keep,
    )
    return done.stdout


def named(machine: str, program: str) -> int:
    """The process of the control plane that runs this program. Raises LookupError."""
    for word in run("ip", "netns", "pids", machine).split():
        command = command_of(int(word))
        if command and Path(command[0]).name == program:
            return int(word)
    raise LookupError(f"{machine} runs no {program}")


def kill(pid: int) -> None:
    """Returns when it is gone. Raises TimeoutError."""
    send([pid], signal.SIGKILL)
    end_s = time.monotonic() + STOP_S
    while command_of(pid):
        if time.monotonic() > end_s:
            raise TimeoutError(f"process {pid} lives {STOP_S:g} s after SIGKILL")
        time.sleep(LOOK_S)


def start(machine: str, command: list[str], log: Path) -> None:
    """In the network of the cluster, whose end ends it too."""
    with log.open("ab") as file:
        subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{machine}", *command],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
