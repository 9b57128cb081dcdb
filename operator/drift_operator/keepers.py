"""A loop for each DriftService that there is: woken by what changed, and by time."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from typing import Any

from drift_operator.console.seen import ServiceSeen
from drift_operator.doors.figures import ServiceFigures
from drift_operator.doors.metrics import Outcome
from drift_operator.doors.pulse import Pulse
from drift_operator.errors import PlaceError
from drift_operator.keeping import BUSY_S, IDLE_S, Keeper, Tools
from drift_operator.places import Gone, Place, Service

log = logging.getLogger(__name__)

AT_ONCE = 16
"""Passes that talk to the API server or to nodes at the same time: 100 services that all begin anew do not make it
refuse them (its default takes 200 changes at a time)."""

IDLE_PASSES_PER_S = 12.0
"""Of all services together that have nothing to do. A pass takes 4 ms of a core, and an operator of a hundred
services at rest may take a twentieth of one; their reports are still younger than `levers.observations.STALE_S`."""

SETTLE_S = 0.1
"""What happens together is looked at together: a Deployment's pods come in bursts."""

RETRY_S, RETRY_MOST_S = 1.0, 60.0

PULSE = "keepers"


class Keepers:
    """Lives in one event loop. Also the `Figures` of the doors."""

    def __init__(self, tools: Tools, place_of: Callable[[Service], Place], pulse: Pulse) -> None:
        self._tools = tools
        self._place_of = place_of
        self._pulse = pulse
        self._room = asyncio.Semaphore(AT_ONCE)
        self._loops: dict[Service, _Loop] = {}
        pulse.expect(PULSE, IDLE_S)
        self._beating = asyncio.create_task(self._beat(), name="keepers")

    def see(self, body: dict[str, Any], *, deleted: bool) -> None:
        """A DriftService, as the watch tells of it."""
        meta = body["metadata"]
        key = (str(meta["namespace"]), str(meta["name"]))
        loop = self._loops.get(key)
        if loop is not None and loop.keeper.body["metadata"]["uid"] != meta["uid"]:
            if deleted:
                return  # the one before
            self._end(key)
            loop = None
        if deleted or meta.get("deletionTimestamp"):
            self._end(key)
            return
        if loop is None:
            loop = self._loops[key] = _Loop(Keeper(self._tools, key, self._place_of(key)))
            loop.keeper.body = body
            loop.task = asyncio.create_task(self._run(loop), name=f"keeping {key[0]}/{key[1]}")
            return
        changed = loop.keeper.body["metadata"].get("generation") != meta.get("generation")
        loop.keeper.body = body
        if changed:  # our own words in its status are no news
            loop.wake.set()

    def wake(self, service: Service) -> None:
        """Something of it changed."""
        if (loop := self._loops.get(service)) is not None:
            loop.wake.set()

    def wake_all(self) -> None:
        for loop in self._loops.values():
            loop.wake.set()

    async def close(self) -> None:
        self._beating.cancel()
        tasks = [loop.task for loop in self._loops.values() if loop.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(self._beating, *tasks, return_exceptions=True)
        self._loops.clear()
        self._pulse.forget(PULSE)

    # for the doors

    def lookup(self, namespace: str, name: str) -> ServiceFigures | None:
        loop = self._loops.get((namespace, name))
        return loop.keeper.figures if loop is not None else None

    def all(self) -> Iterable[ServiceFigures]:
        return [loop.keeper.figures for loop in self._loops.values() if loop.keeper.figures is not None]

    def seen(self) -> Iterable[ServiceSeen]:
        """For the console."""
        return [loop.keeper.seen for loop in self._loops.values()]

    def _end(self, key: Service) -> None:
        loop = self._loops.pop(key, None)
        self._tools.metrics.forget(key)
        if loop is not None and loop.task is not None:
            loop.task.cancel()

    async def _run(self, loop: _Loop) -> None:
        keeper, pause_s = loop.keeper, RETRY_S
        while True:
            loop.wake.clear()
            wait_s, failed = pause_s, True
            start_s = self._tools.clock()
            async with self._room:
                try:
                    wait_s, failed = await keeper.keep(), False
                    if wait_s >= IDLE_S:
                        wait_s = max(wait_s, len(self._loops) / IDLE_PASSES_PER_S)
                except Gone:
                    if self._loops.get(keeper.key) is loop:
                        self._end(keeper.key)
                    return
                except PlaceError as error:
                    wait_s = max(pause_s, error.retry_after_s or 0.0)
                    log.warning(
                        "a pass failed", extra={"service": "/".join(keeper.key), "reason": str(error)}
                    )
                except Exception:  # our own mistake: of this service alone, and told
                    log.exception("a pass failed", extra={"service": "/".join(keeper.key)})
            outcome = Outcome.FAILED if failed else Outcome.CHANGED if keeper.changed else Outcome.UNCHANGED
            self._tools.metrics.reconciled(keeper.key, self._tools.clock() - start_s, outcome)
            pause_s = min(2 * pause_s, RETRY_MOST_S) if failed else RETRY_S
            spread = random.uniform(0.9, 1.1)  # noqa: S311 - services that began together part
            await self._pause(loop, wait_s * spread, wakes=not failed)

    async def _pause(self, loop: _Loop, wait_s: float, *, wakes: bool) -> None:
        """What failed is not tried sooner because something changed: that may be what we changed."""
        if not wakes:
            await asyncio.sleep(wait_s)
            return
        try:
            async with asyncio.timeout(wait_s):
                await loop.wake.wait()
        except TimeoutError:
            return
        await asyncio.sleep(SETTLE_S)

    async def _beat(self) -> None:
        """The event loop moves; a pass has deadlines of its own."""
        while True:
            self._pulse.beat(PULSE)
            await asyncio.sleep(BUSY_S)


class _Loop:
    def __init__(self, keeper: Keeper) -> None:
        self.keeper = keeper
        self.wake = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
