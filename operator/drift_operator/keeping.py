"""One pass over one DriftService: look, decide, do, tell.

Level-based: what asked for the pass does not matter, and every pass can be the first one of an operator that was just
started. Decisions are those of `levers` and `reconciling`; the service's `places.Place`, `pushing` and `telling` have
the effects. The pass is the same on a cluster and in `drift up`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from drift_engine import wire
from drift_operator import manifests
from drift_operator.console.seen import Heard, ServiceSeen
from drift_operator.doors.figures import ServiceFigures
from drift_operator.doors.metrics import Metrics
from drift_operator.driftservice import DriftService
from drift_operator.errors import ManifestError
from drift_operator.fields import seconds
from drift_operator.levers import levers
from drift_operator.levers.observations import Observation
from drift_operator.nodes.channel import Channel
from drift_operator.nodes.sightings import Sightings
from drift_operator.places import Gone, Place, Scene, Service
from drift_operator.pushing import Pushing
from drift_operator.reconciling import leaving, observing
from drift_operator.reconciling.views import View
from drift_operator.telling import Telling

Object = dict[str, Any]

BUSY_S = 1.0
"""Between passes over a service with requests: the quickest lever, the split's bounds, moves no faster."""

IDLE_S = 7.0
"""Between passes over a service without any: a hundred of them may take 5 % of a core, and a report must not be older
than `levers.observations.STALE_S` when the next one comes."""


@dataclass(frozen=True)
class Tools:
    """What every keeper shares."""

    channel: Channel
    metrics: Metrics
    clock: Callable[[], float] = time.monotonic
    wall_clock: Callable[[], float] = time.time


class Keeper:
    """Of one service. One pass at a time."""

    def __init__(self, tools: Tools, key: Service, place: Place) -> None:
        self.key = key
        self.body: Object = {}
        """The DriftService as it was last seen."""
        self._tools = tools
        self._place = place
        self._sightings = Sightings(tools.channel)
        self._pushing = Pushing(tools.channel, tools.metrics, key, tools.clock)
        self._telling = Telling(place, tools.metrics, key)
        self._levers = levers.State()
        self._read: tuple[object, DriftService] | None = None
        self._prompt_tokens = 0

    @property
    def figures(self) -> ServiceFigures | None:
        return self._telling.figures

    @property
    def changed(self) -> bool:
        """By the last pass: something was written."""
        return self._place.changed

    async def keep(self) -> float:
        """One pass. Returns for how long the service can be left alone, in seconds.

        Raises Gone, or PlaceError where its place could not be talked to.
        """
        body, place = self.body, self._place
        if body["metadata"].get("deletionTimestamp"):
            raise Gone
        now_s, unix_s = self._tools.clock(), self._tools.wall_clock()
        place.changed = False
        try:
            service = self._parsed(body)
        except ManifestError as error:
            await self._telling.refuse(body, error.problems, now_s, unix_s)
            return IDLE_S
        token = await place.token(service, now_s)
        scene = place.scene()
        await self._sightings.look(
            [pod for pod in scene.node_pods if pod.ready or pod.drain is not None],
            [pod for pod in scene.router_pods if pod.ready],
            token,
            now_s,
        )
        present = None if scene.nodes is None else scene.nodes.wanted
        staying = None if present is None else leaving.staying(present, scene.node_pods)
        observation = self._observation(service, scene, staying, now_s, unix_s)
        self._levers, outcome = levers.step(self._levers, service, observation, now_s)
        reports = _reports(outcome.believed)
        wanted = _wanted(service, staying, outcome.replicas)
        departure = leaving.depart(
            wanted,
            present,
            scene.node_pods,
            outcome.victims,
            self._in_flight(reports),
            seconds(service.spec.rollout.drain_timeout),
            unix_s,
        )
        refused = await place.make(service, departure, token, now_s)
        await self._pushing.push(service, token, self._sightings, outcome.set_points, [*departure.mark])
        missing = await place.missing(service, now_s)
        view = self._view(
            service, wanted, refused, missing, reports, self._eligible(outcome.believed), unix_s
        )
        await self._telling.tell(body, service, view, outcome, self._levers.ledger, now_s, unix_s)
        settled = not (view.rolling or view.leaving or len(view.serving) < wanted)
        return IDLE_S if settled and not self._busy() and not self._troubled() else BUSY_S

    @property
    def seen(self) -> ServiceSeen:
        """For the console: what is known now."""
        service = self._read[1] if self._read is not None else None
        sightings = self._sightings
        return ServiceSeen(
            self.figures or ServiceFigures(*self.key),
            service.served_name if service is not None else "",
            self._place.inner_url(service) if service is not None else None,
            self._levers.ledger,
            {
                name: Heard(seen.report, seen.at_s, seen.trouble or "")
                for name, seen in sightings.nodes.items()
            },
            {
                name: Heard(seen.report, seen.at_s, seen.trouble or "")
                for name, seen in sightings.routers.items()
            },
        )

    def _parsed(self, body: Object) -> DriftService:
        """Raises ManifestError, also for what only its place can't serve."""
        meta = body["metadata"]
        version = (meta["uid"], meta["generation"])
        if self._read is None or self._read[0] != version:
            service = manifests.parse({key: body[key] for key in ("apiVersion", "kind", "metadata", "spec")})
            if problems := self._place.problems(service):
                raise ManifestError(problems)
            self._read = version, service
        return self._read[1]

    def _observation(
        self, service: DriftService, scene: Scene, staying: int | None, now_s: float, unix_s: float
    ) -> Observation:
        return observing.observe(
            scene.node_pods,
            scene.router_pods,
            self._sightings.nodes,
            self._sightings.routers,
            _wanted(service, None, None) if staying is None else staying,
            now_s,
            unix_s,
            routed=scene.routed,
        )

    def _in_flight(self, reports: Mapping[str, wire.Report]) -> dict[str, int]:
        """Of nodes that answered this pass: whoever leaves may have got requests since an older answer."""
        nodes = self._sightings.nodes
        return {name: report.in_flight for name, report in reports.items() if not nodes[name].trouble}

    def _eligible(self, believed: Observation) -> int | None:
        """Nodes that the routers may send to, of the router that sees fewest."""
        routers = self._sightings.routers
        seen = [routers[router.name].report for router in believed.routers if router.totals is not None]
        return min((report.eligible_nodes for report in seen if report is not None), default=None)

    def _view(
        self,
        service: DriftService,
        wanted: int,
        refused: tuple[str, ...],
        missing: str | None,
        reports: Mapping[str, wire.Report],
        eligible: int | None,
        unix_s: float,
    ) -> View:
        """After what was done."""
        scene = self._place.scene()
        return View(
            generation=service.metadata.generation or 0,
            wanted=wanted,
            nodes=scene.nodes,
            routers=scene.routers,
            node_pods=scene.node_pods,
            router_pods=scene.router_pods,
            reports=reports,
            eligible=eligible,
            unix_s=unix_s,
            routed=scene.routed,
            lacking=self._place.lacking(service),
            missing=missing,
            refused=refused,
        )

    def _busy(self) -> bool:
        """Requests came since the last look, or are there."""
        nodes = [seen.report for seen in self._sightings.nodes.values() if seen.report is not None]
        prompt_tokens = sum(report.prompt_tokens_total for report in nodes)
        before, self._prompt_tokens = self._prompt_tokens, prompt_tokens
        return prompt_tokens != before or any(report.in_flight for report in nodes)

    def _troubled(self) -> bool:
        """Somebody did not answer: that is looked into soon."""
        sightings = self._sightings
        return any(seen.trouble for seen in sightings.nodes.values()) or any(
            seen.trouble for seen in sightings.routers.values()
        )


def _reports(believed: Observation) -> dict[str, wire.Report]:
    """Of nodes. A look that failed is no news: what was said before holds until it is too old to be believed."""
    return {node.name: node.report for node in believed.nodes if node.report is not None}


def _wanted(service: DriftService, staying: int | None, decided: int | None) -> int:
    """Nodes that are to stay. `staying`: those that do now; None: there is nothing yet that makes any. `decided`: the
    levers' word; None: they hold.
    """
    spec = service.spec
    if staying is not None and spec.paused:
        return staying
    if spec.autoscaling is None or spec.autoscaling.mode != "Operator":
        return spec.wanted_replicas
    if decided is not None and not spec.autoscaling.advisory:
        return decided
    low, high = spec.autoscaling.min_replicas, spec.autoscaling.max_replicas
    return low if staying is None else min(max(staying, low), high)
