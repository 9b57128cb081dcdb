"""Nodes from a YAML or JSON file, read again when it changes.

nodes:
  - {name: a, url: http://10.0.0.1:8000, control_url: http://10.0.0.1:8001, weight: 0.5}
"""

from __future__ import annotations

from pathlib import Path

from drift_router.discovery.sources import Listener
from drift_router.nodes import addresses
from drift_router.nodes.addresses import Address
from drift_router.reloading import Reloading


class StaticFile:
    """A Source."""

    def __init__(self, file: Path) -> None:
        self.reloading: Reloading[tuple[Address, ...]] = Reloading(file, addresses.load)

    @property
    def problem(self) -> str:
        return self.reloading.problem

    @property
    def problems(self) -> int:
        return self.reloading.problems

    async def start(self, listener: Listener) -> None:
        await self.reloading.start(listener)

    async def close(self) -> None:
        await self.reloading.close()
