"""Server-sent events out of a byte stream: the little that OpenAI-compatible servers use of them."""

from __future__ import annotations

MAX_EVENT_BYTES = 4 * 1024 * 1024
"""A server that never ends an event must not fill our memory."""


class EventTooLong(Exception):  # noqa: N818 - what happened, as its reader will be told
    """The server does not end its event."""


class SseParser:
    """Feed it what the socket gave, get the `data` of every event that became whole. Comments are skipped."""

    def __init__(self) -> None:
        self._buffer = b""
        self._data: list[bytes] = []

    def feed(self, received: bytes) -> list[bytes]:
        """Raises EventTooLong for an event above MAX_EVENT_BYTES."""
        self._buffer += received
        *lines, self._buffer = self._buffer.split(b"\n")
        events = []
        for line in lines:
            line = line.removesuffix(b"\r")
            if not line:
                if self._data:
                    events.append(b"\n".join(self._data))
                    self._data = []
            elif line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
        if len(self._buffer) + sum(map(len, self._data)) > MAX_EVENT_BYTES:
            raise EventTooLong(f"an event is longer than {MAX_EVENT_BYTES} bytes")
        return events
