"""A place in the fleet: its process, and the next one where that dies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from drift_operator.errors import NodeDied
from drift_operator.local.children import Audience, Child, Launch, ending

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
"""Before a process is started again: what died of a moment's lack is back at once, what always dies takes 2 starts a
minute of the machine."""

STEADY_S = 60.0
"""A process that served for so long died of something new: pauses begin again. Twice the longest one."""


def pause_s(deaths: int) -> float:
    """After so many in a row: doubles."""
    pause = FIRST_PAUSE_S
    for _ in range(deaths - 1):
        if pause >= LONGEST_PAUSE_S:
            break
        pause *= 2
    return min(pause, LONGEST_PAUSE_S)


class Member:
    """Lives in one event loop."""

    def __init__(
        self,
        launch: Launch,
        audience: Audience,
        changed: Callable[[], None] = lambda: None,
        *,
        vital: bool = True,
        restarts: bool = True,
    ) -> None:
        """`vital`: the run ends where it can't come up at first. `restarts`: it is started again where it dies."""
        self.created_s = time.time()
        """Unix time."""
        self.settled = asyncio.Event()
        """It served once, or its life is over."""
        self.serving = False
        """Its process said that it is ready, and lives."""
        self.deaths = 0
        """Processes that nobody asked to end."""
        self.trouble: str | None = None
        """How the last one ended, until there is another."""
        self._launch = launch
        self._audience = audience
        self._changed = changed
        self._vital = vital
        self._restarts = restarts
        self._asked = asyncio.Event()
        self._hurried = False
        self._child: Child | None = None

    @property
    def served(self) -> bool:
        """Once, at least; also of one whose life is over."""
        return self.settled.is_set()

    @property
    def leaving(self) -> bool:
        """It was asked to stop."""
        return self._asked.is_set()

    def ask_to_stop(self, *, at_once: bool = False) -> None:
        self._asked.set()
        self._hurried = self._hurried or at_once
        if self._child is not None:
            self._child.ask_to_stop(at_once=self._hurried)

    async def live(self) -> None:
        """Returns when it ended as asked. Raises NodeDied where it never came up, or did not end well."""
        loop = asyncio.get_running_loop()
        deaths = 0  # in a row
        try:
            while not self._asked.is_set():
                start_s = loop.time()
                how = await self._serve_once()
                if self._asked.is_set():
                    break
                if self._vital and not self.settled.is_set():
                    raise NodeDied(f"{how} before it was ready")
                if not self._restarts:
                    raise NodeDied(f"{how} while it served")
                deaths = 1 if loop.time() - start_s >= STEADY_S else deaths + 1
                self.deaths, self.trouble = self.deaths + 1, how
                self._changed()
                self._tell(f"{how}; starting it again")
                await first(self._asked.wait(), asyncio.sleep(pause_s(deaths)))
        finally:
            self.settled.set()

    async def _serve_once(self) -> str:
        """How it ended. Raises NodeDied where it did not end as asked."""
        child = self._child = await Child.start(self._launch, self._audience)
        self.trouble = None
        try:
            if self._asked.is_set():  # while it was made
                child.ask_to_stop(at_once=self._hurried)
            if await child.wait_ready():
                self._serves()
            await child.ended()
        except NodeDied as stuck:
            if self._vital and not self.settled.is_set():
                raise
            return str(stuck)
        finally:
            self._child, self.serving = None, False
            await child.clean_up()
        how = f"{self._launch.name} {ending(child.code)}"
        if child.asked and not child.stopped_well:
            raise NodeDied(f"{how} when it was asked to stop")
        return how

    def _serves(self) -> None:
        again = self.settled.is_set()
        self.serving = True
        self.settled.set()
        if again or not self._vital:
            self._tell(f"{self._launch.name} serves {'again' if again else 'now'}")
        self._changed()

    def _tell(self, line: str) -> None:
        self._audience.log("", line)


async def first(*waits: Awaitable[object]) -> None:
    """Returns with the first of them; the others are given up."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
