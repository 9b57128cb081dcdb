"""A router in a process of its own, as a terminal or a pod starts it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil

from drift_router import options
from drift_router.options import RouterOptions
from http_calls import get

TOKEN = "control-token"
STOP_S = 20


@dataclass
class RouterProcess:
    url: str
    admin_url: str
    process: subprocess.Popen[bytes]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def rss_bytes(self) -> int:
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_S)


async def ready(process: RouterProcess) -> None:
    for _ in range(200):
        if (await asyncio.to_thread(get, process.url, "/readyz")).status == 200:
            return
        await asyncio.sleep(0.05)
    raise TimeoutError("no node became ready")


@contextlib.contextmanager
def router(*urls: str, token: str = TOKEN, files: int | None = None, **asked: Any) -> Iterator[RouterProcess]:
    """`files`: how many descriptors it may have."""
    wanted = RouterOptions(port=0, nodes=urls, control_token=token, **asked)
    limit = [] if files is None else ["prlimit", f"--nofile={files}:{files}"]
    process = subprocess.Popen(
        [*limit, sys.executable, "-m", "drift_router", "--options", options.dump(wanted)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        yield RouterProcess(said["url"], said["admin_url"], process)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
