"""Files and folders that are read again when they change: the list of nodes, the API keys.

A file that can't be used changes nothing: the last good one counts on, and the log says once what is wrong and where.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from drift_router.documents import DocumentError

log = logging.getLogger(__name__)

INTERVAL_S = 1.0
"""Between two looks. Kubernetes takes up to a minute to change a mounted file; a person is content with a second."""

T = TypeVar("T")

Mark = tuple[tuple[str, int, int, int], ...]


class Reloading(Generic[T]):
    """`load` makes the value of the file or folder, or raises DocumentError."""

    def __init__(self, file: Path, load: Callable[[Path], T]) -> None:
        self.problem = ""
        """Why the file as it is now can't be used; empty: it is in use."""
        self.problems = 0
        """How often that happened."""
        self._file = file
        self._load = load
        self._mark: Mark = ()
        self._task: asyncio.Task[None] | None = None

    async def start(self, changed: Callable[[T], None]) -> None:
        """Calls back with the value, now and after changes. Raises DocumentError if there is none now."""
        self._mark = self._look()
        changed(self._load(self._file))
        self._task = asyncio.get_running_loop().create_task(self._follow(changed))

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def poll(self) -> T | None:
        """The value, if the file changed since the last look and can be used."""
        mark = self._look()
        if mark == self._mark:
            return None
        self._mark = mark
        try:
            value = self._load(self._file)
        except DocumentError as error:
            self.problem = str(error)
            self.problems += 1
            log.error("%s; what was read before stays in use", error)
            return None
        self.problem = ""
        log.info("%s was read again", self._file)
        return value

    async def _follow(self, changed: Callable[[T], None]) -> None:
        while True:
            await asyncio.sleep(INTERVAL_S)
            # in a thread: a file on a network may block, and a long one takes a while to read
            value = await asyncio.to_thread(self.poll)
            if value is not None:
                changed(value)

    def _look(self) -> Mark:
        """Changes whenever the file does, or one in the folder: also when it is replaced by another of the same age
        and size.
        """
        try:
            if self._file.is_dir():
                return tuple(_mark(file) for file in sorted(self._file.iterdir()))
            return (_mark(self._file),)
        except OSError:
            return ()


def _mark(file: Path) -> tuple[str, int, int, int]:
    found = file.stat()
    return file.name, found.st_mtime_ns, found.st_size, found.st_ino
