"""Waiting for what another task will have done, with a deadline."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable

LOOK_S = 0.01
DEADLINE_S = 60.0
"""Many times what anything takes that is waited for: a machine that does other things, too, is late and not wrong."""


async def until(condition: Callable[[], bool | Awaitable[bool]], look_s: float = LOOK_S) -> None:
    """Raises TimeoutError."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + DEADLINE_S
    while True:
        found = condition()
        if await found if inspect.isawaitable(found) else found:
            return
        if loop.time() > end_s:
            raise TimeoutError(f"not within {DEADLINE_S:g} s")
        await asyncio.sleep(look_s)
