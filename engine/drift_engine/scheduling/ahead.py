"""What goes before a prompt that would come now, by how long it is: from this a router predicts its wait.

All that is under way and all that stands before it in the line (`order`), as long as it is in time behind them. Else
only what would not let it pass (`overtaking`): longer prompts do that are late anyway, or have the time. So a short
one has a short wait where long ones make a long queue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from drift_engine import wire
from drift_engine.scheduling import order

LENGTHS_TOKENS = tuple(512 << power for power in range(8))
"""For which it is told, up to 65,536; who is longer waits for all that is queued. With every second of them 84 to
86 % of a trace's requests kept the promise at twice the load that its nodes bear, with all of them 85 to 87 %."""


class Queued(NamedTuple):
    """A prompt that waits or is under way."""

    tokens: int
    """That are to be computed yet."""
    arrival_s: float
    deadline_s: float
    priority: int
    under_way: bool


class _Passable(NamedTuple):
    """One that a new prompt may go before."""

    tokens: int
    start_s: float
    """When it has to be begun to be in time."""
    at_work: bool
    """It is under way, or first in the line by its age."""


def told(
    queued: Iterable[Queued], ttft_s: Callable[[int], float], tokens_per_s: float, now_s: float
) -> tuple[wire.Ahead, ...]:
    """`ttft_s` is what is promised to a prompt of so many uncached tokens, whose priority is 0. A rate of 0: prefills
    take no time."""
    token_s = 1 / tokens_per_s if tokens_per_s else 0.0
    firm_tokens = 0
    passable: list[_Passable] = []
    for tokens, arrival_s, deadline_s, priority, under_way in queued:
        if priority < 0 and not under_way:
            continue
        if priority > 0 or now_s >= order.firm_s(arrival_s, deadline_s):
            firm_tokens += tokens
        else:
            at_work = under_way or now_s >= order.aged_s(arrival_s, deadline_s)
            passable.append(_Passable(tokens, deadline_s - tokens * token_s, at_work))
    return tuple(
        [
            wire.Ahead(length, _ahead(length, ttft_s(length), firm_tokens, passable, token_s, now_s))
            for length in LENGTHS_TOKENS
        ]
    )


def _ahead(
    length: int, ttft_s: float, firm_tokens: int, passable: Sequence[_Passable], token_s: float, now_s: float
) -> int:
    own_s = length * token_s
    start_s = now_s + ttft_s - own_s
    if start_s < now_s:  # late whatever goes before it: behind all
        return firm_tokens + sum([one.tokens for one in passable])
    in_line = lasting = firm_tokens
    for tokens, other_start_s, at_work in passable:
        if other_start_s < now_s:  # late: behind those in time, unless it is at work
            in_line += tokens if at_work else 0
            lasting += tokens if tokens <= length else 0
        elif other_start_s <= start_s:
            in_line += tokens
            lasting += tokens if tokens <= length or other_start_s < now_s + own_s else 0
        elif at_work:
            in_line += tokens
    return in_line if now_s + in_line * token_s <= start_s else min(in_line, lasting)
