"""Carries gossip: one datagram socket for each worker, in a folder that only they can open.

Nothing waits for it, and where nothing happens nothing is told. A word that the kernel does not take now, or whose
receiver is gone, is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from pathlib import Path

import msgspec

from drift_router import gossip
from drift_router.gossip import REPEAT_S, Outbox
from drift_router.routing import Routing

log = logging.getLogger(__name__)

DELAY_S = 0.01
"""From news to telling it. Words of many requests share a datagram, and with it the kernel's work. A session's next
turn takes longer to come. Estimate."""

WORDS_AT_ONCE = 16
"""That are read before requests get their turn."""


class Gossiping:
    """Of one worker, from `start` to `close`."""

    def __init__(self, routing: Routing, outbox: Outbox, folder: Path, place: int, workers: int) -> None:
        self._routing = routing
        self._outbox = outbox
        self._own = folder / str(place)
        self._others = [str(folder / str(other)) for other in range(workers) if other != place]
        self._socket: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Raises OSError."""
        self._own.unlink(missing_ok=True)  # of the worker before in this place
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(str(self._own))
        asyncio.get_running_loop().add_reader(self._socket, self._read, self._socket)
        self._outbox.wake = lambda: self._arm(DELAY_S)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._own.unlink(missing_ok=True)

    def _arm(self, delay_s: float) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time() + delay_s
        if self._timer is not None:
            if self._timer.when() <= due_s:
                return
            self._timer.cancel()
        self._timer = loop.call_at(due_s, self._tell)

    def _tell(self) -> None:
        assert self._socket is not None
        self._timer = None
        for word in self._routing.tell(asyncio.get_running_loop().time()):
            datagram = gossip.encode(word)
            for other in self._others:
                with contextlib.suppress(OSError):
                    self._socket.sendto(datagram, other)
        if self._routing.told:
            self._arm(REPEAT_S)

    def _read(self, own: socket.socket) -> None:
        for _ in range(WORDS_AT_ONCE):
            try:
                datagram = own.recv(gossip.MAX_WORD_BYTES)
            except OSError:
                return
            try:
                word = gossip.decode(datagram)
            except msgspec.DecodeError as error:
                log.warning("a worker's word can't be read: %s", error)
                continue
            self._routing.heard(word, asyncio.get_running_loop().time())
            self._arm(REPEAT_S)
