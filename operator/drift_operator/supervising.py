"""Runs one node process from its start to its end: log relayed, readiness awaited, signals forwarded, nothing left.

`local` says what to run, an `Audience` (the command line, a test) hears what happens. Guarantees, whatever happens:
- the first SIGINT, SIGTERM or SIGHUP asks the node to finish its requests, the second one ends it at once;
- the node is gone when `run` returns or raises, and soon after this process is killed (see `leash`).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import http.client
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from drift_operator.errors import LocalError, NodeDied

POLL_S = 0.1
PROBE_TIMEOUT_S = 2.0
STALL_TIMEOUT_S = 600.0
"""A node that reports no progress for so long will not come up: a download that moves at all reports more often."""
STOP_MARGIN_S = 10.0
"""What a node gets on top of its own drain time before it is killed."""
AT_ONCE_S = 2.0
"""What a node gets to exit at once, so that it can still remove its sockets."""
RELAY_END_S = 1.0
LINE_BYTES = 64 * 1024
"""Longest line of a node's log that is kept whole."""

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Launch:
    """What to start and where it will answer."""

    argv: tuple[str, ...]
    variables: Mapping[str, str]
    host: str
    port: int
    drain_timeout_s: float

    @property
    def probe_host(self) -> str:
        """Where to ask a node that listens on every address."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104


@dataclass(frozen=True)
class Loading:
    """`done` of `total` in the stage's own unit; an empty stage: the node does not answer yet."""

    stage: str = ""
    done: int = 0
    total: int = 0


class Audience(Protocol):
    """Hears what becomes of a node."""

    def log(self, line: str) -> None: ...

    def loading(self, progress: Loading) -> None: ...

    def ready(self) -> None: ...

    def stopping(self) -> None: ...


def free_port(host: str) -> int:
    with _listening(host, 0) as server:
        return int(server.getsockname()[1])


def check_port(host: str, port: int) -> None:
    """Raises LocalError where the address can't be taken: another server's answers would be read as the node's."""
    with _listening(host, port):
        pass


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.create_server((host, port), family=family, backlog=1) as server:
            yield server
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise LocalError(
                f"{host}:{port} is in use by another program; choose another with --port"
            ) from error
        raise LocalError(f"{host}:{port} can't be listened on: {error.strerror or error}") from error


async def run(launch: Launch, audience: Audience) -> None:
    """Returns when the node ended because it was asked to; raises NodeDied when it ended by itself."""
    node = await _Node.start(launch, audience)
    loop = asyncio.get_running_loop()
    for stop_signal in STOP_SIGNALS:
        loop.add_signal_handler(stop_signal, node.ask_to_stop)
    try:
        ready = await node.wait_ready()
        if ready:
            audience.ready()
        await node.ended()
    finally:
        for stop_signal in STOP_SIGNALS:
            loop.remove_signal_handler(stop_signal)
        await node.clean_up()
    if not node.asked:
        raise NodeDied(
            f"the node {ending(node.code)} {'while it served' if ready else 'before it was ready'}"
        )
    if node.code not in (0, -signal.SIGTERM, 128 + signal.SIGTERM) and node.asked < 2:
        raise NodeDied(f"the node {ending(node.code)} when it was asked to stop")


def ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name
    hint = " (out of memory?)" if -code == signal.SIGKILL else ""
    return f"was killed by {name}{hint}"


class _Node:
    """A started process and how often it was asked to stop."""

    def __init__(
        self,
        launch: Launch,
        audience: Audience,
        process: asyncio.subprocess.Process,
        log: asyncio.StreamReader,
        pipe: asyncio.ReadTransport,
    ) -> None:
        self.asked = 0
        self._launch = launch
        self._audience = audience
        self._process = process
        self._log = log
        self._pipe = pipe
        self._exit = asyncio.ensure_future(process.wait())
        self._relay = asyncio.ensure_future(self._relay_log())
        self._killing: asyncio.TimerHandle | None = None

    @classmethod
    async def start(cls, launch: Launch, audience: Audience) -> _Node:
        # A pipe of our own: with asyncio's, waiting for the node would also wait for all who inherited it.
        read_fd, write_fd = os.pipe()
        log = asyncio.StreamReader()
        pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(log), os.fdopen(read_fd, "rb", buffering=0)
        )
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "drift_operator.leash", str(os.getpid())),
                *launch.argv,
                stdin=asyncio.subprocess.DEVNULL,
                # The node's word to whoever does not ask /readyz; its log is on stderr.
                stdout=asyncio.subprocess.DEVNULL,
                stderr=write_fd,
                env={**os.environ, **launch.variables},
                # Its own session: a Ctrl-C reaches us alone, and one kill reaches the node's whole group.
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

    def ask_to_stop(self) -> None:
        if self._exit.done():
            return
        self.asked += 1
        if self.asked == 1:
            self._audience.stopping()
        self._process.terminate()
        patience_s = self._launch.drain_timeout_s + STOP_MARGIN_S if self.asked == 1 else AT_ONCE_S
        if self._killing is not None:
            self._killing.cancel()
        self._killing = asyncio.get_running_loop().call_later(patience_s, self._kill)

    async def wait_ready(self) -> bool:
        """False where the node ended, or was asked to, before it was ready."""
        loop = asyncio.get_running_loop()
        last, moved_s = Loading(), loop.time()
        while not self._exit.done() and not self.asked:
            progress = await asyncio.to_thread(_probe, self._launch.probe_host, self._launch.port)
            if progress is None:
                # An answer from a port whose node is gone would be somebody else's.
                return not self._exit.done()
            if progress != last:
                last, moved_s = progress, loop.time()
                self._audience.loading(progress)
            elif loop.time() - moved_s > STALL_TIMEOUT_S:
                raise NodeDied(
                    f"the node made no progress for {STALL_TIMEOUT_S:g} s at {last.stage or 'its start'}"
                )
            await asyncio.wait({self._exit}, timeout=POLL_S)
        return False

    async def ended(self) -> None:
        await asyncio.shield(self._exit)

    async def clean_up(self) -> None:
        """Afterwards no process of the node's group is left; its core has a group, and a leash, of its own."""
        self._kill()
        if self._killing is not None:
            self._killing.cancel()
        await self._exit
        # The pipe ends with its last writer; one that left the node's session must not hold us.
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
                self._audience.log(line.decode(errors="replace"))
        if rest:
            self._audience.log(rest.decode(errors="replace"))


def _probe(host: str, port: int) -> Loading | None:
    """Asks `/readyz` once: None when the node is ready."""
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
