"""Nodes from the EndpointSlices of a Kubernetes Service: listed, then watched, then listed again.

Every watch ends after some minutes, if not before, and then all slices are listed anew, whatever the reason was: so
nothing that was missed stays missed. Meanwhile, and for as long as the API server is away, the last list counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
from collections.abc import Iterable
from dataclasses import dataclass

import aiohttp
import msgspec

from drift_router.discovery import slices
from drift_router.discovery.api_server import Access, Event, Expired, Refused, Session
from drift_router.discovery.slices import EndpointSlice, SliceList
from drift_router.discovery.sources import Listener
from drift_router.documents import DocumentError
from drift_router.nodes.addresses import Address

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """How long is waited for what."""

    first_s: float = 5.0
    """For the first list; then the router starts without nodes, is not ready, and goes on asking."""
    answer_s: float = 15.0
    """For a list, or for a watch to begin."""
    watch_s: float = 300.0
    """Up to twice as long, by chance, is one watch: as in Kubernetes' own clients."""
    silent_s: float = 90.0
    """A watch that says nothing for so long is dead: bookmarks come once a minute."""
    retry_s: float = 0.5
    """After the first failure; doubled with every further one."""
    retry_most_s: float = 30.0
    """A watch that stood for so long was a success."""


class Slices:
    """The nodes of each of the Service's slices, by its name. All raise DocumentError."""

    def __init__(self) -> None:
        self._nodes: dict[str, tuple[slices.Node, ...]] = {}

    def replace(self, listed: Iterable[EndpointSlice]) -> None:
        self._nodes = {one.metadata.name: slices.nodes_of(one) for one in listed}

    def take(self, event: Event) -> None:
        """Raises msgspec.DecodeError for what is no slice, too."""
        if event.type == "BOOKMARK":
            return
        one = msgspec.json.decode(event.object, type=EndpointSlice)
        if event.type == "DELETED":
            self._nodes.pop(one.metadata.name, None)
        else:
            self._nodes[one.metadata.name] = slices.nodes_of(one)

    def addresses(self) -> tuple[Address, ...]:
        return slices.merged(itertools.chain.from_iterable(self._nodes.values()))


class EndpointSlices:
    """A Source, of the Service `NAMESPACE/NAME`."""

    def __init__(self, service: str, access: Access, pace: Pace | None = None) -> None:
        namespace, _, name = service.partition("/")
        self.problem = ""
        """Why the list may be old; empty: it is not."""
        self.problems = 0
        """How often that happened."""
        self._service = service
        self._access = access
        self._pace = pace or Pace()
        self._path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        self._selector = {"labelSelector": f"kubernetes.io/service-name={name}"}
        self._slices = Slices()
        self._told: tuple[Address, ...] | None = None
        self._listed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self, listener: Listener) -> None:
        """Calls back with an empty list where the API server does not say one in time."""
        self._task = asyncio.get_running_loop().create_task(self._run(listener))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._pace.first_s):
                await self._listed.wait()
        if self._told is None:
            log.warning("nodes of the Service %s are not known yet", self._service)
            listener(())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, listener: Listener) -> None:
        loop, pace = asyncio.get_running_loop(), self._pace
        pause_s = pace.retry_s / 2
        while True:
            start_s = loop.time()
            try:
                await self._round(listener)
            except (Refused, DocumentError, msgspec.DecodeError, aiohttp.ClientError, OSError) as error:
                self._failed(str(error) or type(error).__name__)
            except Exception:
                # our own mistake: without another attempt the list would stay as it is for ever
                log.exception("the EndpointSlices of %s", self._service)
                self._failed("failed; the log says how")
            success = loop.time() - start_s >= pace.retry_most_s
            pause_s = pace.retry_s if success else min(2 * pause_s, pace.retry_most_s)
            await asyncio.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311 - spreads retries

    async def _round(self, listener: Listener) -> None:
        """One list, and one watch to its end."""
        pace = self._pace
        async with self._access.session(pace.answer_s, pace.silent_s) as session:
            document = await session.list(self._path, self._selector)
            listed = msgspec.json.decode(document, type=SliceList)
            self._slices.replace(listed.items)
            self._tell(listener)
            watch_s = pace.watch_s * random.uniform(1, 2)  # noqa: S311 - spreads lists
            with contextlib.suppress(Expired):
                async with asyncio.timeout(watch_s + pace.answer_s):
                    await self._watch(session, listed.metadata.resource_version, watch_s, listener)

    async def _watch(self, session: Session, version: str, watch_s: float, listener: Listener) -> None:
        asked = {**self._selector, "resourceVersion": version, "timeoutSeconds": f"{watch_s:.0f}"}
        async with contextlib.aclosing(session.watch(self._path, asked)) as events:
            async for event in events:
                self._slices.take(event)
                self._tell(listener)

    def _tell(self, listener: Listener) -> None:
        found = self._slices.addresses()
        if self.problem:
            log.info("the EndpointSlices of %s are known again", self._service)
            self.problem = ""
        if found != self._told:
            self._told = found
            listener(found)
        self._listed.set()

    def _failed(self, problem: str) -> None:
        if problem != self.problem:
            log.warning("the EndpointSlices of %s: %s; the last list counts", self._service, problem)
        self.problem = problem
        self.problems += 1
