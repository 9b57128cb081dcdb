"""Log lines of a node or a router: one JSON object a line on stderr, never of what people ask or models answer.

A thread writes them. A full disk or a reader that has stopped costs lines, never a request: the queue is
bounded, and what does not fit or can't be written is dropped.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import threading
import time

_QUEUED_LINES = 2000
_CLOSE_S = 1.0
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Fields given as `extra` become fields of the line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class LineHandler(logging.Handler):
    """Hands finished lines to the thread that writes them to `fd`."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._lines: queue.Queue[bytes | None] = queue.Queue(_QUEUED_LINES)
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()
        self.setFormatter(JsonFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(self.format(record).encode() + b"\n")

    def close(self) -> None:
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(None)
        self._thread.join(_CLOSE_S)
        super().close()

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            with contextlib.suppress(OSError):  # nowhere to say that saying failed
                os.write(self._fd, line)


def install(level: str, fd: int = 2) -> LineHandler:
    """Everything that logs in this process goes there; close the returned handler at the end."""
    logging.raiseExceptions = False
    handler = LineHandler(fd)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in ("uvicorn", "uvicorn.error", "asyncio", "httpx"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))
    return handler


def say(document: dict[str, object]) -> None:
    """A line on stdout for the process that started the node: its addresses, and when it is ready."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(document).encode() + b"\n")


def complain(message: str) -> None:
    """The one line on stderr that says why the node ended."""
    with contextlib.suppress(OSError):
        os.write(2, f"error: {' '.join(message.split())}\n".encode())
