"""One `drift up`: the fleet, the loop that keeps its promise, and the door that tells how it does.

The loop and the door are those of the operator on a cluster (`keepers`, `doors.plain`); the place is this machine.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Any

from aiohttp import web

from drift_operator.console.seen import ServiceSeen
from drift_operator.doors import console, plain
from drift_operator.doors.feed import Feed
from drift_operator.doors.figures import ServiceFigures
from drift_operator.doors.metrics import Metrics
from drift_operator.doors.pulse import Pulse
from drift_operator.driftservice import DriftService
from drift_operator.errors import LocalError
from drift_operator.keepers import Keepers
from drift_operator.keeping import Tools
from drift_operator.local import planning
from drift_operator.local.children import Audience, Launch, reachable
from drift_operator.local.fleet import Fleet
from drift_operator.local.place import LocalPlace
from drift_operator.local.planning import LocalNode, LocalRouter, Plan
from drift_operator.nodes.channel import Channel
from drift_operator.places import Service

STOP_S = 1.0
"""For whoever reads at the door when the run ends."""


class LocalRun:
    """Lives in one event loop. Also the `Figures` of the door."""

    def __init__(
        self, service: DriftService, plan: Plan, token: str, console_token: str, audience: Audience
    ) -> None:
        """`token`: of the nodes' and the router's control. `console_token`: of who may ask from the console."""
        self._console = console.Setting(console_token)
        self._service = service
        self._plan = plan
        self._token = token
        self._audience = audience
        self._pulse = Pulse()
        self._metrics = Metrics(self)
        self._keepers: Keepers | None = None

    async def run(self) -> None:
        """Returns when all ended because they were asked to. Raises NodeDied, or LocalError where the door's port is
        taken.
        """
        plan = self._plan
        several = plan.router is not None
        fleet = Fleet(
            {node.options.node: node_launch(node, several=several) for node in plan.nodes},
            router_launch(plan.router) if plan.router is not None else None,
            self._audience,
        )
        async with self._door(), self._kept(fleet):
            await fleet.run()

    # for the door

    def lookup(self, namespace: str, name: str) -> ServiceFigures | None:
        return self._keepers.lookup(namespace, name) if self._keepers is not None else None

    def all(self) -> Iterable[ServiceFigures]:
        return self._keepers.all() if self._keepers is not None else ()

    def seen(self) -> Iterable[ServiceSeen]:
        return self._keepers.seen() if self._keepers is not None else ()

    @contextlib.asynccontextmanager
    async def _kept(self, fleet: Fleet) -> AsyncIterator[None]:
        """From the first node's start on, so that a status tells of that, too."""
        channel = Channel()
        place = LocalPlace(
            fleet,
            channel,
            self._plan.mould,
            self._plan.nodes,
            launch=lambda node: node_launch(node, several=True),
            url=f"{client_url(self._plan)}/v1",
            admin_url=self._plan.admin_url,
            token=self._token,
            tell=lambda line: self._audience.log("", line),
        )
        keepers = self._keepers = Keepers(Tools(channel, self._metrics), lambda key: place, self._pulse)
        key = service_key(self._service)
        fleet.changed = lambda: keepers.wake(key)
        keepers.see(document(self._service), deleted=False)
        try:
            yield
        finally:
            await keepers.close()
            await channel.close()

    @contextlib.asynccontextmanager
    async def _door(self) -> AsyncIterator[None]:
        page = console.create_app(Feed(self, chat=self._console.chat), self._console)
        app = plain.create_app(self, self._metrics, self._pulse, lambda: None, page=page)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=STOP_S)
        try:
            await runner.setup()
            try:
                await web.TCPSite(runner, planning.HOME, self._plan.door_port).start()
            except OSError as error:
                taken = f"{planning.HOME}:{self._plan.door_port}"
                raise LocalError(f"{taken} can't be listened on: {error.strerror or error}") from error
            yield
        finally:
            await runner.cleanup()


def service_key(service: DriftService) -> Service:
    """By which the door knows it."""
    return planning.NAMESPACE, service.metadata.name


def document(service: DriftService) -> dict[str, Any]:
    """As a cluster would tell of it. It stays as it is for as long as it runs."""
    made = planning.bounded(service).model_dump(mode="json", by_alias=True, exclude_none=True)
    namespace, name = service_key(service)
    return made | {"metadata": {"namespace": namespace, "name": name, "uid": namespace, "generation": 1}}


def client_url(plan: Plan) -> str:
    """Where somebody on this machine asks."""
    host = reachable(plan.front.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{plan.front.port}"


def console_url(plan: Plan, token: str) -> str:
    """What stands after # is not sent, and the page takes it out of the address."""
    return f"{plan.door_url}{console.ROOT}/#token={token}"


def node_launch(node: LocalNode, *, several: bool) -> Launch:
    asked = node.options
    called = {"name": f"node {asked.node}", "label": asked.node} if several else {}
    return Launch(node.argv, node.variables, asked.host, asked.port, asked.drain_timeout_s, **called)


def router_launch(router: LocalRouter) -> Launch:
    """Its admin port says when it is ready: when a node may be sent requests."""
    asked = router.options
    return Launch(
        router.argv,
        router.variables,
        asked.admin_host,
        asked.admin_port,
        asked.patience.drain_s,
        name="the router",
        label="router",
    )
