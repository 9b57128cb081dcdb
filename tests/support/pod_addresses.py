"""Addresses for pods that are no more than sockets of this machine.

Kubernetes refuses loopback addresses in EndpointSlices, so these are of 198.18.0.0/15, which RFC 2544 keeps for
tests: a `local` route makes every address of a block answer here (root is needed). Each process that asks takes a
block of its own, held by a socket on its first address: it is free again when the process has ended, however it did.
"""

from __future__ import annotations

import collections
import ipaddress
import socket
import subprocess
from typing import Self

BLOCKS = tuple(ipaddress.IPv4Network("198.18.0.0/15").subnets(new_prefix=22))
CLAIM_PORT = 1


class Addresses:
    """The 1021 pod addresses of one block."""

    def __init__(self) -> None:
        self.block, self._claim = _claimed()
        host, *pods = self.block.hosts()
        self.host = str(host)
        """Of this machine itself, for what is no pod."""
        self._free = collections.deque(str(address) for address in pods)

    def take(self) -> str:
        """Raises IndexError when all are taken. What was given back is taken again as late as possible."""
        return self._free.popleft()

    def give_back(self, address: str) -> None:
        self._free.append(address)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        _route("del", self.block)
        self._claim.close()


def _claimed() -> tuple[ipaddress.IPv4Network, socket.socket]:
    for block in BLOCKS:
        _route("replace", block)
        claim = socket.socket()
        try:
            claim.bind((str(next(block.hosts())), CLAIM_PORT))
        except OSError:
            claim.close()
        else:
            return block, claim
    raise RuntimeError(f"all {len(BLOCKS)} blocks of pod addresses are taken")


def _route(verb: str, block: ipaddress.IPv4Network) -> None:
    """Raises CalledProcessError, without root for example."""
    subprocess.run(["ip", "route", verb, "local", str(block), "dev", "lo"], check=True, capture_output=True)
