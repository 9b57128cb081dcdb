"""Some of the last decisions with the scores that they were made from, for people who ask why: a bounded ring.

A decision is kept only where the one before is some time ago, so that what explaining costs does not grow with the
load: a quiet router keeps every decision, a busy one a sample. Nothing of a request but its lengths is kept.
"""

from __future__ import annotations

import collections
import heapq
import itertools
from collections.abc import Iterable, Sequence

import msgspec

from drift_router.snapshots import Ask, Decision, Node, Reason, Score

APART_S = 0.5
"""Between two that are kept: scores of 256 nodes take some 0.3 ms, so at most a thousandth of a core. Estimate."""

KEPT = 10
"""As many as an operator shows of its own."""

SCORES = 8
"""Of a decision: the cheapest nodes, the chosen one among them. Ten decisions are then some 15 KB of JSON."""

MOST_NODES = 256
"""Beyond, a kept decision has no scores: no request waits for milliseconds for the sake of a picture."""


class Decided(msgspec.Struct, frozen=True):
    """One decision. Times in seconds."""

    age_s: float
    """When it is told."""
    node: str | None
    """None: no node then."""
    reason: Reason
    prompt_tokens: int
    """Estimated."""
    matched_tokens: int
    """Of these, what the index says the node holds."""
    uncached_tokens: int
    ttft_s: float
    """Predicted."""
    nodes: int
    """That could have been chosen, or had to be passed over."""
    scores: tuple[Score, ...] = ()
    """The cheapest first; at most SCORES."""


class RecentDecisions:
    """Of one worker."""

    def __init__(self) -> None:
        self._ring: collections.deque[tuple[float, Decided]] = collections.deque(maxlen=KEPT)
        self._next_s = 0.0

    def due(self, now_s: float) -> bool:
        """The next decision may be kept."""
        return now_s >= self._next_s

    def keep(self, ask: Ask, decision: Decision, nodes: Sequence[Node], now_s: float) -> None:
        self._next_s = now_s + APART_S
        chosen = next((node.name for node in nodes if node.slot == decision.slot), None)
        decided = Decided(
            0.0,
            chosen,
            decision.reason,
            ask.tokens,
            decision.matched_tokens,
            decision.uncached_tokens,
            decision.ttft_s,
            len(nodes),
            _shown(decision.scores, chosen),
        )
        self._ring.append((now_s, decided))

    def told(self, now_s: float) -> tuple[Decided, ...]:
        """Newest first."""
        return tuple(
            msgspec.structs.replace(decided, age_s=max(0.0, now_s - at_s))
            for at_s, decided in reversed(self._ring)
        )


def merged(told: Iterable[Iterable[Decided]]) -> tuple[Decided, ...]:
    """Of several workers, each newest first."""
    return tuple(itertools.islice(heapq.merge(*told, key=lambda decided: decided.age_s), KEPT))


def _shown(scores: Iterable[Score], chosen: str | None) -> tuple[Score, ...]:
    ordered = sorted(scores, key=lambda score: (score.name != chosen, score.cost_s))
    return tuple(sorted(ordered[:SCORES], key=lambda score: score.cost_s))
