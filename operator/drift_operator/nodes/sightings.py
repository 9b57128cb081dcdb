"""What the pods of a service last told of themselves, and when. Owns no task: it is asked to look."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from drift_engine import wire
from drift_operator.nodes.channel import Channel, Unreachable
from drift_operator.reconciling.pods import Pod
from drift_operator.reconciling.sightings import Sighting
from drift_router.pictures import RouterReport

T = TypeVar("T")


class Sightings:
    """Of one service."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.nodes: dict[str, Sighting[wire.Report]] = {}
        """By the pod's name."""
        self.routers: dict[str, Sighting[RouterReport]] = {}

    async def look(self, nodes: Sequence[Pod], routers: Sequence[Pod], token: str, now_s: float) -> None:
        """Asks all pods at once; takes no longer than one that does not answer."""
        channel = self._channel
        self._forget((*nodes, *routers))
        self.nodes, self.routers = await asyncio.gather(
            _looked(nodes, self.nodes, lambda url: channel.node_report(url, token), now_s),
            _looked(routers, self.routers, lambda url: channel.router_report(url, token), now_s),
        )

    def _forget(self, pods: Sequence[Pod]) -> None:
        present = {pod.uid for pod in pods}
        seen = [node.pod for node in self.nodes.values()] + [router.pod for router in self.routers.values()]
        for pod in seen:
            if pod.uid not in present and pod.url is not None:
                self._channel.forget(pod.url)


async def _looked(
    pods: Sequence[Pod],
    known: Mapping[str, Sighting[T]],
    ask: Callable[[str], Awaitable[T]],
    now_s: float,
) -> dict[str, Sighting[T]]:
    async def look(pod: Pod) -> Sighting[T]:
        before = known.get(pod.name)
        if before is not None and before.pod.uid != pod.uid:
            before = None
        if pod.url is None:
            return Sighting(pod, None, now_s, "it has no address yet")
        try:
            return Sighting(pod, await ask(pod.url), now_s, None)
        except Unreachable as error:
            if before is None:
                return Sighting(pod, None, now_s, str(error))
            return Sighting(pod, before.report, before.at_s, str(error))

    return {seen.pod.name: seen for seen in await asyncio.gather(*map(look, pods))}
