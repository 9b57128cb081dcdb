"""One operator: the gate, the watches, a loop for each service, and the doors around them.

Lease (cluster/lease)  ->  watches (cluster/watching, handlers)  ->  keepers  ->  keeping: levers, cluster/place
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from typing import Any

from aiohttp import web

from drift_operator import handlers
from drift_operator.cluster import api as cluster
from drift_operator.cluster import discovery, kinds, leader
from drift_operator.cluster.api import Api, ApiError
from drift_operator.cluster.caches import Cache
from drift_operator.cluster.lease import Lease
from drift_operator.cluster.place import Cluster, ClusterPlace
from drift_operator.cluster.recording import Recorder
from drift_operator.cluster.watching import SILENT_S, Watching
from drift_operator.console.seen import ServiceSeen
from drift_operator.doors import console, plain
from drift_operator.doors.feed import Feed
from drift_operator.doors.figures import ServiceFigures
from drift_operator.doors.hpa_door import HpaDoor
from drift_operator.doors.metrics import Metrics
from drift_operator.doors.pulse import Pulse
from drift_operator.keepers import Keepers
from drift_operator.keeping import Tools
from drift_operator.nodes.channel import Channel
from drift_operator.objects import names
from drift_operator.objects.kinds import Kind
from drift_operator.options import OperatorOptions
from drift_operator.places import Service

log = logging.getLogger(__name__)

DISCOVER_S = 60.0
"""Between two looks at which optional kinds the cluster has: they are installed by people."""

STOP_S = 5.0
LIST_S = 60.0
"""For the first list of every kind."""

WAITING = "waiting for the Lease"


class Operator:
    """Lives in one event loop. `run` returns when it was asked to stop; who loses the Lease waits for it again."""

    def __init__(self, options: OperatorOptions) -> None:
        self.port = 0
        """Of health, metrics and JSON; 0 until it listens."""
        self._options = options
        self._pulse = Pulse()
        self._metrics = Metrics(self, options.cluster_name)
        self._keepers: Keepers | None = None
        self._optional: frozenset[Kind] = frozenset()
        self._standing = WAITING
        self._console = console.setting(os.environ, options.console_hosts)
        self._stop = asyncio.Event()
        self._failure: BaseException | None = None

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(each, self._stop.set)
        api = Api(await cluster.connect())
        page = None
        if self._options.console:
            page = console.create_app(Feed(self, chat=self._console.chat), self._console)
        door = web.AppRunner(
            plain.create_app(
                self,
                self._metrics,
                self._pulse,
                lambda: None if self._ready else self._standing,
                page=page,
            ),
            access_log=None,
            handle_signals=False,
            shutdown_timeout=STOP_S,
        )
        try:
            await door.setup()
            await web.TCPSite(door, self._options.host, self._options.port).start()
            self.port = int(door.addresses[0][1])
            log.info("listening", extra={"port": self.port})
            await leader.hide(api, self._options)
            leading = asyncio.create_task(self._compete(api))
            stopping = asyncio.create_task(self._stop.wait())
            await asyncio.wait({leading, stopping}, return_when=asyncio.FIRST_COMPLETED)
            for task in (leading, stopping):
                task.cancel()
            (failed, _) = await asyncio.gather(leading, stopping, return_exceptions=True)
            if isinstance(failed, Exception):
                raise failed
            if self._failure is not None:
                raise self._failure
        finally:
            await door.cleanup()
            await api.close()

    # for the doors

    def lookup(self, namespace: str, name: str) -> ServiceFigures | None:
        return self._keepers.lookup(namespace, name) if self._keepers is not None else None

    def all(self) -> list[ServiceFigures]:
        return list(self._keepers.all()) if self._keepers is not None else []

    def seen(self) -> list[ServiceSeen]:
        return list(self._keepers.seen()) if self._keepers is not None else []

    @property
    def _ready(self) -> bool:
        """One that waits for the Lease is ready, too: to take over."""
        return self._standing in ("", WAITING)

    async def _compete(self, api: Api) -> None:
        """For the Lease, as often as it is lost. Returns when the work with it has ended."""
        options = self._options
        gate = Lease(api, options.own_namespace, options.lease, options.identity)
        while not await gate.lead(lambda: self._lead(api)):
            self._standing = WAITING

    async def _lead(self, api: Api) -> None:
        """With the Lease, until it is cancelled."""
        self._standing = "listing what there is"
        options = self._options
        channel = Channel()
        recorder = Recorder(api, options.identity)
        cache = Cache(self._changed)
        watching = Watching(
            api,
            cache,
            options.namespaces,
            f"{names.MANAGED_BY}={names.FIELD_MANAGER}",
            self._pulse.beat,
            self._metrics.watch_restarted,
        )
        hpa = HpaDoor(options, api, self, self._pulse) if options.external_metrics_port is not None else None
        tools = Tools(channel, self._metrics)
        shared = Cluster(
            api,
            cache,
            recorder,
            options,
            lambda: self._optional,
            lambda: hpa.foreign if hpa is not None else None,
        )
        keepers = None
        extra: list[asyncio.Task[None]] = []
        try:
            self._optional = await self._discovered(api)
            for kind in (kinds.POD, *kinds.OWNED, *self._optional):
                self._pulse.expect(kind.plural, SILENT_S)
                watching.start(kind)
            async with asyncio.timeout(LIST_S):
                while not watching.complete():  # noqa: ASYNC110 - nothing tells
                    await asyncio.sleep(0.05)
            keepers = self._keepers = Keepers(tools, lambda key: ClusterPlace(shared, key), self._pulse)
            extra.append(asyncio.create_task(self._discover(api, watching, keepers)))
            if hpa is not None:
                extra.append(asyncio.create_task(hpa.run()))
            for task in extra:
                task.add_done_callback(self._ended)
            self._standing = ""
            # kopf tells of every event that it saw, and warns that signals are not its to hear
            logging.getLogger("kopf").setLevel(logging.WARNING)
            logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
            extra.append(asyncio.create_task(leader.show(api, options)))
            log.info("leading", extra={"identity": options.identity})
            services = asyncio.create_task(handlers.run(self._see, options.namespaces, self._stop))
            extra.append(services)
            await asyncio.wait({services})
            services.result()
        finally:
            self._standing = "stopping"
            self._keepers = None
            if keepers is not None:  # before all that takes time: without the Lease nobody may act
                await keepers.close()
            for task in extra:
                task.cancel()
            await asyncio.gather(*extra, return_exceptions=True)
            await leader.hide(api, options)
            await watching.close()
            for kind in (kinds.POD, *kinds.OWNED, *self._optional):
                self._pulse.forget(kind.plural)
            await recorder.close()
            await channel.close()

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A part that can't go on takes the operator with it: a restart is seen, a part that is missing is not."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the operator ends: %s", error)
            self._failure = error
            self._stop.set()

    def _see(self, body: dict[str, Any], deleted: bool) -> None:
        if self._keepers is not None:
            self._keepers.see(body, deleted=deleted)

    def _changed(self, service: Service) -> None:
        if self._keepers is not None:
            self._keepers.wake(service)

    async def _discovered(self, api: Api) -> frozenset[Kind]:
        pause_s = 1.0
        while True:
            try:
                return await discovery.optional_kinds(api)
            except ApiError as error:
                log.warning("which kinds the cluster has can't be told: %s", error)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, DISCOVER_S)

    async def _discover(self, api: Api, watching: Watching, keepers: Keepers) -> None:
        """Kinds that are installed while the operator runs. One that is removed again takes its objects with it."""
        while True:
            await asyncio.sleep(DISCOVER_S)
            found = await self._discovered(api)
            if found != self._optional:
                log.info("optional kinds: %s", ", ".join(sorted(map(str, found))) or "none")
                for kind in found - self._optional:
                    self._pulse.expect(kind.plural, SILENT_S)
                    watching.start(kind)
                for kind in self._optional - found:
                    self._pulse.forget(kind.plural)
                    await watching.stop(kind)
                self._optional = found
                keepers.wake_all()


def serve(options: OperatorOptions) -> None:
    start_s = time.monotonic()
    asyncio.run(Operator(options).run())
    log.info("stopped", extra={"ran_s": round(time.monotonic() - start_s)})
