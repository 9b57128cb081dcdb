"""What the KV cache's bookkeeping costs, in nanoseconds per operation, as JSON.

    python -m benchmarks.engine.cache --json benchmarks/engine/results/cache.json

The operations are the scheduler's: one `reserve` and one `publish` per running request and step, `match` per
waiting request, `open` and `close` per request, and eviction where the pool is full. Each number is the median of
several rounds, with the garbage collector off.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import machine
from benchmarks.engine import results

from drift_engine.cache import KvCache

PAGES, PAGE_TOKENS, PROMPT_TOKENS, VOCABULARY = 100_000, 16, 12_000, 128_000


def median_ns(rounds: int, operations: int, act: Callable[[], object]) -> float:
    """Nanoseconds per operation of an `act` that does `operations` of them."""
    samples = []
    gc.disable()
    for _ in range(rounds):
        start = time.perf_counter_ns()
        act()
        samples.append((time.perf_counter_ns() - start) / operations)
    gc.enable()
    return round(statistics.median(samples), 1)


def prompt(seed: int, tokens: int = PROMPT_TOKENS) -> list[int]:
    return random.Random(seed).choices(range(VOCABULARY), k=tokens)


def prefixes() -> dict[str, float]:
    """A long prompt that is cached, in a pool that holds much else."""
    cache = KvCache(PAGES, PAGE_TOKENS)
    for seed in range(100):
        remember(cache, prompt(seed))
    known, unknown = prompt(0), prompt(1000)

    def reopen() -> None:
        cache.close(cache.open(known, ""))

    return {
        "match_cached_prompt": median_ns(51, 1, lambda: cache.match(known, "").tokens),
        "match_unknown_prompt": median_ns(51, 1, lambda: cache.match(unknown, "").tokens),
        "open_and_close_cached_prompt": median_ns(51, 1, reopen),
    }


def remember(cache: KvCache, token_ids: list[int]) -> None:
    sequence = cache.open(token_ids, "")
    cache.reserve(sequence, len(token_ids))
    cache.publish(sequence, token_ids, len(token_ids))
    cache.close(sequence)
    cache.take_events()


def pages() -> dict[str, float]:
    """Per page, of long prompts that nobody knows: taken from the free list, then from others by eviction."""
    rounds, count = 51, PROMPT_TOKENS // PAGE_TOKENS
    free = KvCache(count * (rounds + 1), PAGE_TOKENS)
    full = KvCache(count * (rounds + 1), PAGE_TOKENS)
    for seed in range(rounds + 1):
        remember(full, prompt(seed))
    fresh = [prompt(1000 + seed) for seed in range(rounds)]
    opened = iter([free.open(token_ids, "") for token_ids in fresh])
    crowded = iter([full.open(token_ids, "") for token_ids in fresh])

    reserve_free = median_ns(rounds, count, lambda: free.reserve(next(opened), PROMPT_TOKENS))
    reserve_evicting = median_ns(rounds, count, lambda: full.reserve(next(crowded), PROMPT_TOKENS))

    store = KvCache(count * rounds, PAGE_TOKENS)
    pairs = [(store.open(token_ids, ""), token_ids) for token_ids in fresh]
    for sequence, _ in pairs:
        store.reserve(sequence, PROMPT_TOKENS)
    queue = iter(pairs)
    return {
        "reserve_free_page": reserve_free,
        "reserve_page_by_eviction": reserve_evicting,
        "publish_page": median_ns(rounds, count, lambda: store.publish(*next(queue), PROMPT_TOKENS)),
    }


def decoding(rows: int = 256, steps: int = 128) -> dict[str, float]:
    """Per sequence and step of a batch that decodes: both calls; each row fills a page every `PAGE_TOKENS` steps."""
    cache = KvCache(PAGES, PAGE_TOKENS)
    texts = [prompt(row, 1000 + row % PAGE_TOKENS) for row in range(rows)]
    sequences = [cache.open(text, "") for text in texts]
    pairs = list(zip(sequences, texts, strict=True))

    def step() -> None:
        for sequence, text in pairs:
            text.append(7)
            cache.reserve(sequence, len(text))
            cache.publish(sequence, text, len(text))
        cache.take_events()

    step()
    covered, text = pairs[0]
    tokens = covered.publish_at_tokens - 1

    def reserve_covered() -> None:
        for _ in range(1000):
            cache.reserve(covered, tokens)

    def publish_nothing() -> None:
        for _ in range(1000):
            cache.publish(covered, text, tokens)

    return {
        "reserve_covered": median_ns(51, 1000, reserve_covered),
        "publish_nothing_new": median_ns(51, 1000, publish_nothing),
        "decode_step_per_sequence": median_ns(steps, rows, step),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results.write(
        {
            "benchmark": "engine/cache",
            "machine": machine.describe(),
            "setting": {
                "pages": PAGES,
                "page_tokens": PAGE_TOKENS,
                "prompt_tokens": PROMPT_TOKENS,
                "rows": 256,
            },
            "ns_per_operation": {**prefixes(), **pages(), **decoding()},
        },
        arguments.json,
    )


if __name__ == "__main__":
    main()
