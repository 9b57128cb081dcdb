"""The core as a child process: started with the node, never outliving it, and its end explained.

The core asks the kernel to end it with its parent (`drift_engine.core.serving`), which covers a killed
node; everything else is here. It has a process group of its own, so that a terminal's Ctrl-C reaches the
node alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from drift_engine import options
from drift_engine.options import NodeOptions

CoreCommand = Callable[[str, NodeOptions, Path], list[str]]
"""(socket's address, options, model's folder) -> program and arguments."""

STOP_S = 5.0
"""For the core to leave its loop after `wire.Shutdown`: one step, and freeing its memory."""


def core_command(address: str, node_options: NodeOptions, model_path: Path) -> list[str]:
    # everybody on the machine can read a command line: the core needs no secrets
    public = msgspec.structs.replace(node_options, control_token="", api_key_sha256=())
    return [
        sys.executable,
        "-m",
        "drift_engine.core",
        *("--socket", address),
        *("--options", options.dump(public)),
        *("--model-path", str(model_path)),
        *("--parent-pid", str(os.getpid())),
    ]


class CoreChild:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, command: list[str]) -> CoreChild:
        # its stdout joins our stderr: stdout is the node's own word to whoever started it
        return cls(
            await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=2, process_group=0
            )
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait(self) -> int:
        return await self._process.wait()

    async def stop(self) -> None:
        """After `wire.Shutdown` was sent: waits, then kills."""
        try:
            async with asyncio.timeout(STOP_S):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


def how_it_ended(status: int) -> str:
    """`status` as asyncio gives it: negative for a signal."""
    if status >= 0:
        return f"the core process ended unexpectedly with status {status}"
    name = signal.Signals(-status).name
    hint = "; the machine may have run out of memory" if -status == signal.SIGKILL else ""
    return f"the core process was ended by {name}{hint}"
