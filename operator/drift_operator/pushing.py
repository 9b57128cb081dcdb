"""What nodes and routers are told after a pass: set-points, the promise, and to drain.

Everybody is told at once. Who can't be reached is told by the next pass, or decides alone when the time to live of
what it was told last is over.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator

from drift_engine import wire
from drift_operator.doors.metrics import Metrics
from drift_operator.driftservice import DriftService
from drift_operator.levers.setpoints import SetPoint
from drift_operator.nodes.channel import Channel, Unreachable
from drift_operator.nodes.sightings import Sightings
from drift_operator.places import Service
from drift_router.pictures import RouterReport

log = logging.getLogger(__name__)


class Pushing:
    """Of one service."""

    def __init__(
        self, channel: Channel, metrics: Metrics, key: Service, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._channel = channel
        self._metrics = metrics
        self._key = key
        self._clock = clock

    async def push(
        self,
        service: DriftService,
        token: str,
        sightings: Sightings,
        set_points: Iterable[SetPoint],
        marked: Collection[str],
    ) -> None:
        """`marked`: names of nodes that leave from now on."""
        calls = [
            *self._splits(token, sightings, set_points),
            *self._words(service, token, sightings, marked),
            *self._promises(service, token, sightings),
        ]
        await asyncio.gather(*map(self._told, calls))

    def _splits(
        self, token: str, sightings: Sightings, set_points: Iterable[SetPoint]
    ) -> Iterator[Awaitable[None]]:
        for point in set_points:
            seen = sightings.nodes.get(point.node)
            if seen is not None and seen.pod.url is not None:
                yield self._channel.put_split(seen.pod.url, token, point)

    def _words(
        self, service: DriftService, token: str, sightings: Sightings, marked: Collection[str]
    ) -> Iterator[Awaitable[None]]:
        promise = promise_of(service)
        for name, node in sightings.nodes.items():
            report, url = node.report, node.pod.url
            if report is None or url is None or node.trouble:
                continue
            if report.ready and report.slo != promise:
                yield self._channel.put_targets(url, token, promise)
            if (node.pod.drain is not None or name in marked) and not report.draining:
                yield self._channel.drain(url, token)

    def _promises(self, service: DriftService, token: str, sightings: Sightings) -> Iterator[Awaitable[None]]:
        promise, generation = promise_of(service), service.metadata.generation or 0
        for router in sightings.routers.values():
            report, url = router.report, router.pod.url
            if report is None or url is None or router.trouble or keeps(report, promise):
                continue
            yield self._channel.put_promise(url, token, promise, generation)

    async def _told(self, call: Awaitable[None]) -> None:
        start_s = self._clock()
        try:
            await call
        except Unreachable as error:
            log.info("a push failed", extra={"service": "/".join(self._key), "reason": str(error)})
            self._metrics.pushed(self._clock() - start_s, acknowledged=False)
        else:
            self._metrics.pushed(self._clock() - start_s, acknowledged=True)


def promise_of(service: DriftService) -> wire.Targets:
    slo = service.spec.slo
    return wire.Targets(float(slo.ttft.target_ms), float(slo.ttft.per_token_ms), float(slo.tbt.target_ms))


def keeps(report: RouterReport, promise: wire.Targets) -> bool:
    """The router promises this already."""
    said = report.promise
    return (said.ttft_ms, said.ttft_per_token_ms, said.tbt_ms) == (
        promise.ttft_ms,
        promise.ttft_per_token_ms,
        promise.tbt_ms,
    )
