"""In which order waiting requests are served: who has to start soonest, before whom it is too late for.

By laxity, the time that is left until a request must start to make its TTFT target. A request that cannot make it any
more steps behind those that can, for a bounded time: from AGED_TARGETS of its targets on it is the first in the line,
and only those that overtake go before it (`overtaking`); from FIRM_TARGETS on nobody who came later does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, TypeVar

from drift_engine import wire

AGED_TARGETS = 4.0
"""A wait of so many TTFT targets ends every demotion. With the default of 400 ms: 1.6 s. With two, 94.5 % of the
requests keep the promise, with four 95.0 %, with eight 93.9 % (`benchmarks/simulation/results/equal_rates.json`)."""

FIRM_TARGETS = 8.0
"""And one of so many ends all overtaking. With four here too it is 91.6 %: two prompts of 85,000 and 69,000 tokens
that had aged made twelve short ones late behind them, by 5 s and more. With 16 it is 95.1 % (there)."""

FIRST_COME = frozenset(
    {
        wire.Mode.PREFILL_FIRST,
        wire.Mode.SOLO_PREFILL,
        wire.Mode.SOLO_DECODE,
        wire.Mode.BATCH_TABLE,
        wire.Mode.MUXWISE,
    }
)
"""Modes that serve first come, first served, as what they stand for does."""

_AGED, _TIMELY, _LATE = 0, 1, 2


class Placed(Protocol):
    """What a request's place in the line depends on."""

    @property
    def priority(self) -> int: ...

    @property
    def arrival_s(self) -> float: ...

    @property
    def deadline_s(self) -> float: ...

    @property
    def uncached_tokens(self) -> int: ...


P = TypeVar("P", bound=Placed)


def aged_s(arrival_s: float, deadline_s: float) -> float:
    """When a request has waited for so long that nobody who came later stands before it in the line."""
    return arrival_s + AGED_TARGETS * (deadline_s - arrival_s)


def firm_s(arrival_s: float, deadline_s: float) -> float:
    """When it has waited for so long that nobody who came later goes before it at all."""
    return arrival_s + FIRM_TARGETS * (deadline_s - arrival_s)


def line(waiting: Sequence[P], tokens_per_s: float, now_s: float) -> tuple[list[P], float]:
    """The requests in the order in which to serve them, and until when it stays the same.

    Higher priorities first, then as said above; equals in order of arrival. A rate of 0: prefills take no time.
    """
    token_s = 1 / tokens_per_s if tokens_per_s else 0.0
    until_s = math.inf
    keys: list[tuple[int, int, float, float, int]] = []
    for index, request in enumerate(waiting):
        arrival_s, deadline_s = request.arrival_s, request.deadline_s
        ageing_s = arrival_s + AGED_TARGETS * (deadline_s - arrival_s)
        if now_s >= ageing_s:
            keys.append((-request.priority, _AGED, arrival_s, arrival_s, index))
            continue
        start_s = deadline_s - request.uncached_tokens * token_s
        if start_s >= now_s:
            keys.append((-request.priority, _TIMELY, start_s, arrival_s, index))
            until_s = min(until_s, start_s)
        else:
            keys.append((-request.priority, _LATE, arrival_s, arrival_s, index))
            until_s = min(until_s, ageing_s)
    keys.sort()
    return [waiting[key[4]] for key in keys], until_s
