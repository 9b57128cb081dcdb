"""What an admin port is of, without a data plane."""

from __future__ import annotations

import msgspec

from drift_router.counters import Counters
from drift_router.discovery.pushed import OldEpoch, Update
from drift_router.nodes import addresses
from drift_router.nodes.statuses import NodeStatus
from drift_router.pictures import Picture
from drift_router.promises import Promised
from router_pictures import picture_of, status_of


class FakeRouter:
    """One node; takes words up to the epoch that it was told."""

    def __init__(self) -> None:
        self.nodes: list[NodeStatus] = [status_of("a")]
        self.draining = False
        self.answers = True
        self.pushed = True
        self.problem = ""
        self.taken: list[Update] = []
        self.promised = Promised(3, 400.0, 80.0)

    async def picture(self) -> Picture:
        if not self.answers:
            raise TimeoutError
        picture = picture_of(Counters.fresh(0.4, 0.08), self.nodes, draining=self.draining)
        return msgspec.structs.replace(picture, promised=self.promised, nodes_problem=self.problem)

    async def take_nodes(self, update: Update) -> None:
        if not self.pushed:
            raise PermissionError("the nodes are those of a file")
        if self.taken and update.epoch < self.taken[-1].epoch:
            raise OldEpoch(update.epoch, self.taken[-1].epoch)
        addresses.checked(update.nodes)
        self.taken.append(update)

    async def take_promise(self, asked: Promised) -> None:
        if asked.epoch < self.promised.epoch:
            raise OldEpoch(asked.epoch, self.promised.epoch)
        self.promised = asked
