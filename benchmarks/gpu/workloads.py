"""Three synthetic workloads whose lengths are drawn like those of chats, of long documents and of agents.

A session is turns one after the other; each turn's prompt is everything said so far and some new tokens. Arrivals are
Poisson. The shapes are ours, chosen after published length statistics; they are no trace.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Turn:
    new_tokens: int
    answer_tokens: int


@dataclass(frozen=True)
class Session:
    at_s: float
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class Workload:
    """`stem_tokens` begin every prompt: all sessions share them. `ttft_ms` is the target of every turn."""

    name: str
    ttft_ms: float
    stem_tokens: int
    turns: Callable[[random.Random], tuple[Turn, ...]]

    def sessions(self, rate_per_s: float, duration_s: float, seed: int) -> list[Session]:
        """At least one."""
        draws, at_s = random.Random(seed), 0.0
        found: list[Session] = []
        while not found or at_s < duration_s:
            found.append(Session(at_s, self.turns(draws)))
            at_s += draws.expovariate(rate_per_s)
        return found

    def means(self) -> tuple[float, float]:
        """New and answered tokens of a session."""
        draws = random.Random(0)
        turns = [turn for _ in range(500) for turn in self.turns(draws)]
        return sum(t.new_tokens for t in turns) / 500, sum(t.answer_tokens for t in turns) / 500


def _lognormal(draws: random.Random, median: float, sigma: float, fewest: int, most: int) -> int:
    return max(fewest, min(most, round(draws.lognormvariate(math.log(median), sigma))))


def _chat(draws: random.Random) -> tuple[Turn, ...]:
    return (Turn(_lognormal(draws, 160, 1.1, 8, 2000), _lognormal(draws, 120, 0.8, 8, 400)),)


def _document(draws: random.Random) -> tuple[Turn, ...]:
    return (Turn(_lognormal(draws, 6000, 0.5, 1000, 16000), _lognormal(draws, 40, 0.5, 8, 120)),)


def _agent(draws: random.Random) -> tuple[Turn, ...]:
    first = Turn(_lognormal(draws, 3000, 0.5, 500, 10000), _lognormal(draws, 50, 0.6, 8, 150))
    later = [
        Turn(_lognormal(draws, 350, 0.9, 20, 3000), _lognormal(draws, 50, 0.6, 8, 150))
        for _ in range(draws.randrange(3, 9))
    ]
    return (first, *later)


def _tiny(draws: random.Random) -> tuple[Turn, ...]:
    return tuple(Turn(draws.randrange(4, 30), 3) for _ in range(2))


WORKLOADS = (
    Workload("chats, lengths like ShareGPT's", 400.0, 0, _chat),
    Workload("long prompts, short answers", 2000.0, 0, _document),
    Workload("agent sessions, long reuse", 600.0, 2000, _agent),
)
TINY_WORKLOADS = (Workload("tiny sessions", 400.0, 20, _tiny),)
