"""The processes of a local run and its router, as a test says that they do."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from drift_operator.local.children import Launch
from drift_operator.nodes.channel import Unreachable
from drift_router.discovery.pushed import Update
from drift_router.nodes.addresses import Address


@dataclass
class FakeProcess:
    created_s: float = 0.0
    serving: bool = False
    served: bool = False
    leaving: bool = False
    deaths: int = 0
    trouble: str | None = None

    def serve(self) -> None:
        self.serving = self.served = True
        self.trouble = None

    def die(self) -> None:
        self.serving = False
        self.deaths += 1
        self.trouble = "node was killed by SIGKILL"


@dataclass
class FakeFleet:
    nodes: dict[str, FakeProcess]
    router: FakeProcess | None
    stopping: bool = False
    launches: dict[str, Launch] = field(default_factory=dict)
    stopped: list[str] = field(default_factory=list)
    now_s: float = 0.0

    def start(self, name: str, launch: Launch) -> None:
        assert name not in self.nodes
        self.nodes[name] = FakeProcess(self.now_s)
        self.launches[name] = launch

    def stop(self, name: str) -> None:
        self.nodes[name].leaving = True
        self.stopped.append(name)

    def end(self, name: str) -> None:
        """It has done what it had."""
        assert self.nodes[name].leaving
        del self.nodes[name]


class FakeRouterChannel:
    """Hears which nodes there are; `away`: not now."""

    def __init__(self) -> None:
        self.away = False
        self.words: list[Update] = []

    async def put_nodes(self, url: str, token: str, update: Update) -> None:
        if self.away:
            raise Unreachable("no answer within 1 s")
        assert update.epoch > (self.words[-1].epoch if self.words else 0)
        self.words.append(update)

    @property
    def known(self) -> dict[str, Address]:
        """By the last word."""
        return {node.name: node for node in self.words[-1].nodes} if self.words else {}


class FreePorts:
    """Each is taken once."""

    def __init__(self) -> None:
        self._next = itertools.count(20_000)

    def __call__(self, host: str, count: int) -> list[int]:
        return [next(self._next) for _ in range(count)]
