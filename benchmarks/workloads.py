"""Small synthetic workloads of the three kinds that modes differ on, as arrivals; the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Iterator

from drift_engine.bench.traces import Arrival


def chats(rate_rps: float, requests: int, *, scale: float = 1.0, seed: int = 0) -> list[Arrival]:
    """Like ShareGPT: prompts of 250 tokens and answers of 200 on average, both skewed, nothing shared."""
    draw = random.Random(seed)
    return [
        _arrival(
            index, at_s, _skewed(draw, 160, 1.0, 16, 2000, scale), _skewed(draw, 130, 0.9, 8, 800, scale)
        )
        for index, at_s in _times(draw, rate_rps, requests)
    ]


def long_prompts(rate_rps: float, requests: int, *, scale: float = 1.0, seed: int = 0) -> list[Arrival]:
    """One long prompt with a short answer for every three short prompts with long answers."""
    draw = random.Random(seed)
    return [
        _arrival(index, at_s, round(2000 * scale * draw.uniform(0.7, 1.3)), max(2, round(20 * scale)))
        if index % 4 == 3
        else _arrival(index, at_s, max(8, round(100 * scale)), max(8, round(250 * scale)))
        for index, at_s in _times(draw, rate_rps, requests)
    ]


def agents(rate_rps: float, requests: int, *, scale: float = 1.0, seed: int = 0) -> list[Arrival]:
    """Conversations of eight turns: each prompt is the one before and 200 tokens more behind a stem of 1,200."""
    draw = random.Random(seed)
    block = max(1, round(200 * scale))
    found = []
    for index, at_s in _times(draw, rate_rps, requests):
        conversation, turn = index % max(1, requests // 8), index // max(1, requests // 8)
        ids = [conversation * 1000 + number for number in range(6 + turn + 1)]
        found.append(
            Arrival(
                index=index,
                at_s=at_s,
                prompt_tokens=len(ids) * block,
                output_tokens=_skewed(draw, 60, 0.6, 8, 300, scale),
                block_ids=tuple(ids),
                block_tokens=block,
            )
        )
    return found


def _times(draw: random.Random, rate_rps: float, requests: int) -> Iterator[tuple[int, float]]:
    """A Poisson process."""
    at_s = 0.0
    for index in range(requests):
        yield index, at_s
        at_s += draw.expovariate(rate_rps)


def _skewed(draw: random.Random, median: float, sigma: float, least: int, most: int, scale: float) -> int:
    """Log-normal."""
    value = median * draw.lognormvariate(0.0, sigma)
    return max(2, round(scale * min(max(value, least), most)))


def _arrival(index: int, at_s: float, prompt_tokens: int, output_tokens: int) -> Arrival:
    return Arrival(
        index=index,
        at_s=at_s,
        prompt_tokens=max(2, prompt_tokens),
        output_tokens=output_tokens,
        block_ids=(10_000_000 + index,),
        block_tokens=max(2, prompt_tokens),
    )
