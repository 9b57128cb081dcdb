"""Waiting for what another task will have done, with a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LOOK_S = 0.01
DEADLINE_S = 20.0


async def until(condition: Callable[[], bool]) -> None:
    """Raises TimeoutError."""
    for _ in range(round(DEADLINE_S / LOOK_S)):
        if condition():
            return
        await asyncio.sleep(LOOK_S)
    raise TimeoutError(f"not within {DEADLINE_S:g} s")
