"""Which simulated node takes a request, and who hears of what becomes of it.

Two simple policies, for whoever simulates nodes and not their router. The router itself is a `Dispatcher` of the
command line's: the engine does not know the router.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from drift_engine import wire
from drift_engine.errors import OptionsError


class Request(NamedTuple):
    """One that needs a node now."""

    request_id: str
    token_ids: Sequence[int]
    at_s: float
    drawn_tokens: int = 0
    """Of its answer, on nodes that it was on before."""


class NodeState(Protocol):
    """What a node tells of itself."""

    def report(self, now_s: float) -> wire.Report: ...


class Dispatcher:
    """Chooses, and may listen: whatever it does not care for does nothing."""

    interval_s = math.inf
    """Between two calls of `look`."""

    def joined(self, index: int, node: NodeState, at_s: float) -> None:
        """A node may be sent requests."""

    def left(self, index: int, at_s: float) -> None:
        """It is gone, or takes nothing new any more."""

    def choose(self, request: Request) -> int | None:
        """Index of the node that it is sent to; None: there is none."""
        raise NotImplementedError

    def changed(self, node: int, waiting_tokens: int, requests: int) -> None:
        """A node has so many prompt tokens of requests without a first token, and so many requests in all."""

    def told(self, request_id: str, times_s: Sequence[float], cached_tokens: int) -> None:
        """Tokens of an answer, and when they came. `cached_tokens` of the prompt were cached where it is now."""

    def ended(self, request_id: str, at_s: float, *, ok: bool) -> None:
        """Nothing more comes of it; of a request that is handed on, from that node."""

    def broken(self, request_id: str, at_s: float) -> None:
        """Its node is gone with it. `choose` follows."""

    def kept(self, index: int, events: Sequence[wire.KvEvent]) -> None:
        """Changes of a node's prefix cache."""

    def look(self, now_s: float) -> None:
        """Every `interval_s`, while there are requests and just before."""

    @property
    def listens(self) -> bool:
        """Whether nodes have to tell their caches' changes."""
        return False


class RoundRobin(Dispatcher):
    """In turn, whatever they have to do."""

    def __init__(self) -> None:
        self._nodes: list[int] = []
        self._turn = 0

    def joined(self, index: int, node: NodeState, at_s: float) -> None:
        self._nodes.append(index)

    def left(self, index: int, at_s: float) -> None:
        self._nodes.remove(index)

    def choose(self, request: Request) -> int | None:
        if not self._nodes:
            return None
        self._turn += 1
        return self._nodes[(self._turn - 1) % len(self._nodes)]


REQUEST_TOKENS = 64
"""Prompt tokens that a decoding request counts as: as much of an 8B model's step on an H200 as its share of the
prefill rate. Estimate."""


class LeastLoad(Dispatcher):
    """To the node with the least work before it; the first of equals after the one chosen last."""

    def __init__(self) -> None:
        self._loads = np.zeros(0)
        self._last = -1

    def joined(self, index: int, node: NodeState, at_s: float) -> None:
        if index >= len(self._loads):
            missing = index + 1 - len(self._loads)
            self._loads = np.append(self._loads, np.full(missing, np.inf))
        self._loads[index] = 0.0
        self._last = len(self._loads) - 1

    def left(self, index: int, at_s: float) -> None:
        self._loads[index] = np.inf

    def choose(self, request: Request) -> int | None:
        turned = np.roll(self._loads, -self._last - 1)
        least = int(np.argmin(turned)) if len(turned) else 0
        if not len(turned) or turned[least] == np.inf:
            return None
        self._last = (least + self._last + 1) % len(self._loads)
        return self._last

    def changed(self, node: int, waiting_tokens: int, requests: int) -> None:
        if self._loads[node] < np.inf:
            self._loads[node] = waiting_tokens + REQUEST_TOKENS * requests


Making = Callable[[], Dispatcher]
"""A dispatcher, new for every run."""

POLICIES: dict[str, Making] = {"least-load": LeastLoad, "round-robin": RoundRobin}


def make(policy: str) -> Dispatcher:
    """Raises OptionsError."""
    if policy not in POLICIES:
        raise OptionsError(f"routing: {policy!r} is unknown; known: {', '.join(sorted(POLICIES))}")
    return POLICIES[policy]()


def names() -> Sequence[str]:
    return tuple(POLICIES)
