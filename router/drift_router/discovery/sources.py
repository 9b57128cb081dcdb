"""What every source of nodes looks like to the router."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from drift_router.nodes.addresses import Address

Listener = Callable[[tuple[Address, ...]], None]
"""Takes the whole list, whenever it may have changed."""


class Source(Protocol):
    @property
    def problem(self) -> str:
        """Why the last list may be old; empty: it is not."""

    @property
    def problems(self) -> int:
        """How often that happened."""

    async def start(self, listener: Listener) -> None:
        """Calls back now, and whenever the list may have changed. Raises DocumentError if it can't now."""

    async def close(self) -> None: ...
