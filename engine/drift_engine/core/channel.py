"""The core's end of the socket to the api process: typed messages in and out, never blocking.

What the socket won't take at once waits in a bounded backlog. An api process that reads nothing for so long is
dead or hung, and the core ends rather than grow.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

import zmq

from drift_engine import wire
from drift_engine.errors import EngineError


class Messages(Protocol):
    """What the core's loop needs of its channel."""

    def send(self, message: wire.FromCore) -> None: ...

    def flush(self) -> None: ...

    def receive(self, timeout_s: float) -> list[wire.ToCore]: ...


MAX_BACKLOG = 100_000
"""Messages; about half an hour of steps."""


class Channel:
    """One ZeroMQ PAIR socket. Owned by the core's thread."""

    def __init__(self, address: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PAIR)
        self._socket.setsockopt(zmq.LINGER, 1000)
        self._socket.connect(address)
        self._backlog: deque[bytes] = deque()

    def send(self, message: wire.FromCore) -> None:
        """Raises EngineError when the api process has stopped reading."""
        if len(self._backlog) >= MAX_BACKLOG:
            raise EngineError(f"the api process has not read {MAX_BACKLOG} messages")
        self._backlog.append(wire.encode(message))
        self.flush()

    def flush(self) -> None:
        """Hands over what the socket takes now."""
        while self._backlog:
            try:
                self._socket.send(self._backlog[0], zmq.NOBLOCK)
            except zmq.Again:
                return
            self._backlog.popleft()

    def receive(self, timeout_s: float) -> list[wire.ToCore]:
        """Everything that has come; waits at most `timeout_s` for the first message."""
        if timeout_s and not self._socket.poll(int(timeout_s * 1000)):
            return []
        messages: list[wire.ToCore] = []
        while True:
            try:
                messages.append(wire.decode_to_core(self._socket.recv(zmq.NOBLOCK)))
            except zmq.Again:
                return messages

    def close(self) -> None:
        self.flush()
        self._socket.close()
        self._context.term()
