"""Nodes that answer at once and the load on what stands before them: two C programs, much cheaper than any router."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).parent
PROGRAMS = ("upstream", "generate")
CORE = 1
"""Of the nodes and of the load; routers have core 0 for themselves."""
DEADLINE_S = 60.0
KEY = "benchmark"
SESSIONS, SYSTEM_PROMPTS, TURNS = 64, 4, 4
HOST = "127.0.0.1"


def build(folder: Path) -> None:
    """Raises FileNotFoundError without gcc."""
    for name in PROGRAMS:
        command = ["gcc", "-O2", "-Wall", "-Werror", "-o", f"{folder / name}", f"{SOURCES / name}.c", "-lm"]
        subprocess.run(command, check=True, timeout=DEADLINE_S)


def pinned(core: int, command: Sequence[str | Path]) -> list[str]:
    return ["taskset", "-c", str(core), *map(str, command)]


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((HOST, 0))
        return [int(one.getsockname()[1]) for one in sockets]


class Upstream:
    """Several nodes in one process."""

    def __init__(self, ports: Sequence[int], process: subprocess.Popen[str]) -> None:
        self.ports = ports
        self._process = process
        self._acknowledged()

    def answer(self, how: str) -> None:
        """As `upstream.c` says."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{how}\n")
        self._process.stdin.flush()
        self._acknowledged()

    def _acknowledged(self) -> None:
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ok\n":
            raise RuntimeError("the dummy nodes have ended")


@contextlib.contextmanager
def serving(folder: Path, count: int) -> Iterator[Upstream]:
    ports = free_ports(count)
    command = pinned(CORE, [folder / "upstream", *map(str, ports)])
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Upstream(ports, process)


def generate(folder: Path, port: int, requests: Path, how: str) -> dict[str, Any]:
    """`how`: as `generate.c` says, after the requests. Raises RuntimeError if it could not be done."""
    command = pinned(CORE, [folder / "generate", str(port), requests, *how.split()])
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no result")
    result: dict[str, Any] = json.loads(done.stdout)
    if done.stderr.strip():
        result["error"] = done.stderr.strip()[:300]
    return result


@contextlib.contextmanager
def holding(folder: Path, port: int, requests: Path, streams: int, patience_s: float) -> Iterator[int]:
    """How many streams are open, of those wished."""
    command = pinned(
        CORE, [folder / "generate", str(port), requests, "hold", str(streams), f"{patience_s:g}"]
    )
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield int(json.loads(line)["open"]) if line else 0


def request(body: dict[str, Any]) -> bytes:
    """A whole HTTP request."""
    content = json.dumps(body).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\n"
        f"host: {HOST}\r\nauthorization: Bearer {KEY}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def conversations(size_bytes: int, *, stream: bool) -> Iterator[bytes]:
    """Sessions share system prompts, a half of the body; the last message is new each time."""
    dice = random.Random(size_bytes)
    room = size_bytes - 300
    systems = [_text(dice, room // 2) for _ in range(SYSTEM_PROMPTS)]
    for session in range(SESSIONS):
        history = _text(dice, room // 2)
        for turn in range(TURNS):
            said = history[: len(history) * (turn + 1) // TURNS].ljust(len(history))
            yield request(
                {
                    "model": "dummy",
                    "messages": [
                        {"role": "system", "content": systems[session % SYSTEM_PROMPTS]},
                        {"role": "user", "content": said},
                        {"role": "assistant", "content": "Go on."},
                        {"role": "user", "content": "Question ##########"},
                    ],
                    "max_tokens": 100,
                    "stream": stream,
                }
            )


def write(path: Path, requests: Iterable[bytes]) -> Path:
    """The file that `generate.c` reads."""
    path.write_bytes(b"".join(struct.pack("<I", len(one)) + one for one in requests))
    return path


def missing() -> list[str]:
    """Programs that are needed and not there."""
    return [name for name in ("gcc", "taskset") if shutil.which(name) is None]


def _text(dice: random.Random, size: int) -> str:
    words = []
    length = 0
    while length < size:
        words.append("".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=dice.randint(2, 9))))
        length += len(words[-1]) + 1
    return " ".join(words)[:size]
