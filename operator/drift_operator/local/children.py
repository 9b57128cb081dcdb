"""One process of ours from its start to its end: leash, log, readiness, signals, and nothing left of it."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from drift_operator.errors import NodeDied

POLL_S = 0.1
PROBE_TIMEOUT_S = 2.0
STALL_TIMEOUT_S = 600.0
"""Without progress for so long a process will not come up: a download that moves at all reports more often."""
STOP_MARGIN_S = 10.0
"""What a process gets on top of its own drain time before it is killed."""
AT_ONCE_S = 2.0
"""What a process gets to exit at once, so that it can still remove its sockets."""
RELAY_END_S = 1.0
LINE_BYTES = 64 * 1024
"""Longest line of a log that is kept whole."""


@dataclass(frozen=True)
class Launch:
    """What to start and where it will say that it is ready."""

    argv: tuple[str, ...]
    variables: Mapping[str, str]
    host: str
    port: int
    drain_timeout_s: float
    name: str = "the node"
    """In sentences."""
    label: str = ""
    """Of its log lines; empty: there is only one process to be heard of."""


@dataclass(frozen=True)
class Loading:
    """`done` of `total` in the stage's own unit; an empty stage: the process does not answer yet."""

    stage: str = ""
    done: int = 0
    total: int = 0


def reachable(host: str) -> str:
    """Where to ask a process that listens on `host`, which may stand for every address."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104


class Audience(Protocol):
    """Hears what becomes of processes, each by its label."""

    def log(self, label: str, line: str) -> None: ...

    def loading(self, label: str, progress: Loading) -> None: ...

    def ready(self) -> None:
        """All that has to be."""

    def stopping(self) -> None: ...


def ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name
    hint = " (out of memory?)" if -code == signal.SIGKILL else ""
    return f"was killed by {name}{hint}"


class Child:
    """A started process. Whoever has one calls `clean_up` in the end, whatever happened."""

    def __init__(
        self,
        launch: Launch,
        audience: Audience,
        process: asyncio.subprocess.Process,
        log: asyncio.StreamReader,
        pipe: asyncio.ReadTransport,
    ) -> None:
        self.asked = False
        """To stop; `hurried`: at once."""
        self.hurried = False
        self._launch = launch
        self._audience = audience
        self._process = process
        self._log = log
        self._pipe = pipe
        self._exit = asyncio.ensure_future(process.wait())
        self._relay = asyncio.ensure_future(self._relay_log())
        self._killing: asyncio.TimerHandle | None = None

    @classmethod
    async def start(cls, launch: Launch, audience: Audience) -> Child:
        # A pipe of our own: with asyncio's, waiting for the process would also wait for all who inherited it.
        read_fd, write_fd = os.pipe()
        log = asyncio.StreamReader()
        pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(log), os.fdopen(read_fd, "rb", buffering=0)
        )
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "drift_operator.local.leash", str(os.getpid())),
                *launch.argv,
                stdin=asyncio.subprocess.DEVNULL,
                # Its word to whoever does not ask /readyz; its log is on stderr.
                stdout=asyncio.subprocess.DEVNULL,
                stderr=write_fd,
                env={**os.environ, **launch.variables},
                # Its own session: a Ctrl-C reaches us alone, and one kill reaches its whole group.
                start_new_session=True,
            )
        except BaseException:
            pipe.close()
            raise
        finally:
            os.close(write_fd)
        return cls(launch, audience, process, log, pipe)

    @property
    def code(self) -> int:
        assert self._process.returncode is not None
        return self._process.returncode

    @property
    def stopped_well(self) -> bool:
        """It ended as it was asked to."""
        return self.hurried or (self.asked and self.code in (0, -signal.SIGTERM, 128 + signal.SIGTERM))

    def ask_to_stop(self, *, at_once: bool = False) -> None:
        """At first it may finish its requests."""
        if self._exit.done() or self.hurried or (self.asked and not at_once):
            return
        self.asked, self.hurried = True, at_once
        self._process.terminate()
        patience_s = AT_ONCE_S if at_once else self._launch.drain_timeout_s + STOP_MARGIN_S
        if self._killing is not None:
            self._killing.cancel()
        self._killing = asyncio.get_running_loop().call_later(patience_s, self._kill)

    async def wait_ready(self) -> bool:
        """False where it ended, or was asked to, before it was ready. Raises NodeDied where it gets nowhere."""
        loop = asyncio.get_running_loop()
        last, moved_s = Loading(), loop.time()
        while not self._exit.done() and not self.asked:
            progress = await asyncio.to_thread(_probe, reachable(self._launch.host), self._launch.port)
            if progress is None:
                # An answer from a port whose process is gone would be somebody else's.
                return not self._exit.done()
            if progress != last:
                last, moved_s = progress, loop.time()
                self._audience.loading(self._launch.label, progress)
            elif loop.time() - moved_s > STALL_TIMEOUT_S:
                raise NodeDied(
                    f"{self._launch.name} made no progress for {STALL_TIMEOUT_S:g} s "
                    f"at {last.stage or 'its start'}"
                )
            await asyncio.wait({self._exit}, timeout=POLL_S)
        return False

    async def ended(self) -> None:
        await asyncio.shield(self._exit)

    async def clean_up(self) -> None:
        """Afterwards no process of its group is left; a node's core has a group, and a leash, of its own."""
        self._kill()
        if self._killing is not None:
            self._killing.cancel()
        await self._exit
        # The pipe ends with its last writer; one that left the session must not hold us.
        await asyncio.wait({self._relay}, timeout=RELAY_END_S)
        self._relay.cancel()
        self._pipe.close()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def _relay_log(self) -> None:
        rest = b""
        while chunk := await self._log.read(LINE_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > LINE_BYTES:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._audience.log(self._launch.label, line.decode(errors="replace"))
        if rest:
            self._audience.log(self._launch.label, rest.decode(errors="replace"))


def _probe(host: str, port: int) -> Loading | None:
    """Asks `/readyz` once: None when the process is ready."""
    connection = http.client.HTTPConnection(host, port, timeout=PROBE_TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        body = answer.read(LINE_BYTES)
    except (OSError, http.client.HTTPException):
        return Loading()
    finally:
        connection.close()
    if answer.status == http.HTTPStatus.OK:
        return None
    return _loading(body)


def _loading(body: bytes) -> Loading:
    try:
        report = json.loads(body)
        return Loading(str(report["stage"]), int(report["done"]), int(report["total"]))
    except (ValueError, TypeError, KeyError):
        return Loading()
