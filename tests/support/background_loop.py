"""An event loop on a thread of its own, for stand-ins that work while a test waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Self, TypeVar

T = TypeVar("T")

DEADLINE_S = 60.0


class BackgroundLoop:
    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name=name)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive(), f"{self._thread.name} does not end"
        self.loop.close()

    def run(self, work: Coroutine[Any, Any, T], deadline_s: float = DEADLINE_S) -> T:
        """From any other thread. Raises what `work` raises, or TimeoutError."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(deadline_s)

    def call(self, work: Callable[[], T]) -> T:
        """The same for a function."""

        async def calling() -> T:
            return work()

        return self.run(calling())
