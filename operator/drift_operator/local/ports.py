"""Ports of this machine that nobody has, for the processes that are about to listen on them."""

from __future__ import annotations

import contextlib
import errno
import random
import socket
from collections.abc import Iterator
from pathlib import Path

from drift_operator.errors import LocalError

LOWEST = 20_000
"""Below it are the ports that programs are known by."""

TRIES = 200
"""Of random ports for each that is wanted: with half of them taken, all fail once in 10^60."""

RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free(host: str, count: int = 1) -> list[int]:
    """Raises LocalError where `host` is none of ours.

    They are outside of the range that the kernel takes the ports of outgoing connections from, where there is room:
    inside it, a connection may have the port of a process that is about to start again.
    """
    below = _first_outgoing()
    with contextlib.ExitStack() as held:  # until all are found, so that none is found twice
        return [_free(host, below, held) for _ in range(count)]


def check(host: str, port: int) -> None:
    """Raises LocalError where the address can't be taken: another server's answers would be read as the node's."""
    with _listening(host, port):
        pass


def _free(host: str, below: int, held: contextlib.ExitStack) -> int:
    for port in random.sample(range(LOWEST, below), TRIES) if below - LOWEST > TRIES else ():
        try:
            server = held.enter_context(_server(host, port))
        except OSError:
            continue
        return int(server.getsockname()[1])
    return int(held.enter_context(_listening(host, 0)).getsockname()[1])


def _first_outgoing() -> int:
    try:
        return int(RANGE_FILE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0


def _server(host: str, port: int) -> socket.socket:
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    return socket.create_server((host, port), family=family, backlog=1)


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        with _server(host, port) as server:
            yield server
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise LocalError(
                f"{host}:{port} is in use by another program; choose another with --port"
            ) from error
        raise LocalError(f"{host}:{port} can't be listened on: {error.strerror or error}") from error
