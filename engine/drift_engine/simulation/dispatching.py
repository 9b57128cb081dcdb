"""Which simulated node takes a request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from drift_engine.errors import OptionsError


class Dispatcher(Protocol):
    def choose(self) -> int:
        """Index of the node for the next request."""

    def changed(self, node: int, waiting_tokens: int, requests: int) -> None:
        """A node has so many prompt tokens of requests without a first token, and so many requests in all."""


class RoundRobin:
    """In turn, whatever they have to do."""

    def __init__(self, nodes: int) -> None:
        self._nodes = nodes
        self._next = 0

    def choose(self) -> int:
        chosen, self._next = self._next, (self._next + 1) % self._nodes
        return chosen

    def changed(self, node: int, waiting_tokens: int, requests: int) -> None:
        """It does not ask."""


REQUEST_TOKENS = 64
"""Prompt tokens that a decoding request counts as: as much of an 8B model's step on an H200 as its share of the
prefill rate. Estimate."""


class LeastLoad:
    """To the node with the least work before it; the first of equals after the one chosen last."""

    def __init__(self, nodes: int) -> None:
        self._loads = np.zeros(nodes)
        self._last = nodes - 1

    def choose(self) -> int:
        turned = np.roll(self._loads, -self._last - 1)
        self._last = (int(np.argmin(turned)) + self._last + 1) % len(self._loads)
        return self._last

    def changed(self, node: int, waiting_tokens: int, requests: int) -> None:
        self._loads[node] = waiting_tokens + REQUEST_TOKENS * requests


POLICIES: dict[str, Callable[[int], Dispatcher]] = {"least-load": LeastLoad, "round-robin": RoundRobin}


def make(policy: str, nodes: int) -> Dispatcher:
    """Raises OptionsError."""
    if policy not in POLICIES:
        raise OptionsError(f"routing: {policy!r} is unknown; known: {', '.join(sorted(POLICIES))}")
    return POLICIES[policy](nodes)


def names() -> Sequence[str]:
    return tuple(POLICIES)
