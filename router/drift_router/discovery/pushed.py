"""Nodes as somebody tells them (`PUT /control/v1/nodes`), with numbered words: an older one changes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import msgspec

from drift_router import documents
from drift_router.discovery.sources import Listener
from drift_router.nodes import addresses
from drift_router.nodes.addresses import MAX_NODES, Address

MAX_EPOCH = (1 << 63) - 1


class Update(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All nodes, as of the word `epoch`. The same epoch may be said again."""

    epoch: Annotated[int, msgspec.Meta(extra_json_schema={"minimum": 1, "maximum": MAX_EPOCH})]
    nodes: Annotated[tuple[Address, ...], msgspec.Meta(extra_json_schema={"maxItems": MAX_NODES})]

    def __post_init__(self) -> None:
        if not 1 <= self.epoch <= MAX_EPOCH:
            raise ValueError(f"epoch: {self.epoch} is not between 1 and {MAX_EPOCH}")


class OldEpoch(Exception):  # noqa: N818 - a fact about the asker
    """Somebody who was replaced still talks."""

    def __init__(self, epoch: int, last: int) -> None:
        super().__init__(f"epoch: {epoch} is older than {last}, the last that was taken")


class Pushed:
    """A Source. Starts with what the router was told on its command line."""

    problem = ""
    problems = 0

    def __init__(self, beginning: Iterable[Address] = ()) -> None:
        self.epoch = 0
        """Of the last word; 0: none came."""
        self._nodes = addresses.checked(tuple(beginning))
        self._listener: Listener | None = None

    async def start(self, listener: Listener) -> None:
        self._listener = listener
        listener(self._nodes)

    async def close(self) -> None:
        self._listener = None

    def take(self, update: Update) -> None:
        """Raises OldEpoch, or DocumentError where two nodes could be confused."""
        if update.epoch < self.epoch:
            raise OldEpoch(update.epoch, self.epoch)
        nodes = addresses.checked(update.nodes)
        self.epoch, self._nodes = update.epoch, nodes
        if self._listener is not None:
            self._listener(nodes)


def parse(body: bytes) -> Update:
    """JSON. Raises DocumentError that names field, value and limit."""
    return documents.read_json(body, Update)
