"""Runs nodes and the router before them: the first nodes start together, then the router; it ends first, then they.

`planning` says what to run, an `Audience` (the command line, a test) hears what happens. Guarantees, in any case:
- a process that dies while it serves is started again; one that can't come up at the very start fails the run, and so
  does the end of a node that is alone and has no router;
- the first SIGINT, SIGTERM or SIGHUP lets requests finish, the second one ends all at once;
- no process is left when `run` returns or raises, and soon after this process is killed (see `leash`).
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping

from drift_operator.errors import NodeDied
from drift_operator.local.children import Audience, Launch
from drift_operator.local.members import Member, first

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Fleet:
    """Lives in one event loop."""

    def __init__(self, nodes: Mapping[str, Launch], router: Launch | None, audience: Audience) -> None:
        """`nodes`: the first ones, by name."""
        self.changed: Callable[[], None] = lambda: None
        """Called when a process serves, dies or is gone."""
        self._audience = audience
        self._asked = asyncio.Event()
        self._group = asyncio.TaskGroup()
        self._released: set[str] = set()
        alone = router is None and len(nodes) == 1
        self.nodes = {name: self._member(launch, restarts=not alone) for name, launch in nodes.items()}
        """Those that were asked to stop are among them until they are gone."""
        self.router = None if router is None else self._member(router)

    async def run(self) -> None:
        """Once. Returns when all ended because they were asked to. Raises NodeDied."""
        try:
            with on_stop(self._stop):
                async with self._group as group:
                    for name, member in self.nodes.items():
                        group.create_task(self._live(name, member))
                    await first(self._asked.wait(), _all_settled([*self.nodes.values()]))
                    await self._serve(group)
                    for member in self.nodes.values():
                        member.ask_to_stop()
        except ExceptionGroup as failed:
            died, other = failed.split(NodeDied)
            if other is not None or died is None:
                raise
            raise NodeDied("\n".join(str(error) for error in died.exceptions)) from None

    @property
    def stopping(self) -> bool:
        """All of them end."""
        return self._asked.is_set()

    def start(self, name: str, launch: Launch) -> None:
        """One node more, that is started again until it comes up. Nothing is started any more while all end."""
        assert name not in self.nodes, name
        if self._asked.is_set():
            return
        member = self.nodes[name] = self._member(launch, vital=False)
        self._group.create_task(self._live(name, member))

    def stop(self, name: str) -> None:
        """One node less: it finishes what it has, and is gone from `nodes` then."""
        self._released.add(name)
        self.nodes[name].ask_to_stop()

    async def _serve(self, group: asyncio.TaskGroup) -> None:
        """Until the router, where there is one, ended as it was asked to."""
        if self._asked.is_set():
            return
        if self.router is None:
            self._audience.ready()
            await self._asked.wait()
            return
        life = group.create_task(self.router.live())
        await first(self._asked.wait(), self.router.settled.wait())
        if not self._asked.is_set():
            self._audience.ready()
            await self._asked.wait()
        self.router.ask_to_stop()
        await asyncio.wait({life})

    async def _live(self, name: str, member: Member) -> None:
        try:
            await member.live()
        except NodeDied as died:
            if name not in self._released:
                self._asked.set()  # the run is over: nothing is started any more
                raise
            self._audience.log("", str(died))
        if name in self._released:
            self._released.discard(name)
            del self.nodes[name]
            self.changed()

    def _stop(self) -> None:
        if self._asked.is_set():
            for member in (*([self.router] if self.router is not None else []), *self.nodes.values()):
                member.ask_to_stop(at_once=True)
        else:
            self._asked.set()
            self._audience.stopping()

    def _member(self, launch: Launch, *, vital: bool = True, restarts: bool = True) -> Member:
        return Member(launch, self._audience, lambda: self.changed(), vital=vital, restarts=restarts)


@contextlib.contextmanager
def on_stop(heard: Callable[[], None]) -> Iterator[None]:
    """Calls `heard` for every signal that asks this process to end."""
    loop = asyncio.get_running_loop()
    for stop_signal in STOP_SIGNALS:
        loop.add_signal_handler(stop_signal, heard)
    try:
        yield
    finally:
        for stop_signal in STOP_SIGNALS:
            loop.remove_signal_handler(stop_signal)


async def _all_settled(members: Iterable[Member]) -> None:
    for member in members:
        await member.settled.wait()
