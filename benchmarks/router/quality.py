"""Which requests meet their cache, and how evenly work is spread, when nodes answer at once.

    python -m benchmarks.router.quality --traces FOLDER --json benchmarks/router/results/quality.json

Recorded requests go to eight nodes, each with an LRU cache of 2,048 blocks of 512 tokens, by each policy. Nothing
ever waits, so there is no queue to see: what published figures of other routers were measured with. Time is the
trace's. Knowledge of the caches is exact, as from KV events, or only what the router itself has sent and heard back;
with several routers, each has seen a part of the requests. Then the constants of the cache-aware policy, one at a
time.
"""

from __future__ import annotations

import argparse
import random
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import xxhash
from benchmarks import machine
from benchmarks.engine import results

from drift_engine.bench import traces
from drift_engine.bench.traces import Arrival
from drift_engine.simulation import prompts
from drift_router.policies import cache_aware, fading, predicting
from drift_router.policies.choosing import choose
from drift_router.snapshots import Ask, IndexState, Node, Policy, Reason

FILES = {
    "mooncake conversation": "mooncake_conversation_first_1200s.jsonl.gz",
    "mooncake synthetic": "mooncake_synthetic.jsonl.gz",
    "agent sessions": "agent_sessions_text.jsonl.gz",
}
NODES = 8
CACHE_TOKENS = 2048 * 512
RATE_TOKENS_PER_S = 40_000.0
TTFT_S = 1.0
TTFT_PER_TOKEN_S = 0.1e-3
TBT_S = 0.025
KEY_TOKENS = 1024
"""Whose hash is the request's key. All conversations begin with the same 512 tokens."""
TEXT_BLOCK_TOKENS = 64
TRUST_SHARE = 0.1
"""What an answer counts in the share of promises that a node has kept."""


class Prompt(NamedTuple):
    at_s: float
    tokens: int
    blocks: Sequence[int]  # a name stands for all up to its block
    block_tokens: int


class Cache:
    """Of one node, or what a router knows of it; `tokens` None: without bound."""

    def __init__(self, tokens: int | None) -> None:
        self._tokens = tokens
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def matched(self, prompt: Prompt) -> int:
        count = 0
        for block in prompt.blocks:
            if block not in self._blocks:
                break
            count += 1
        return min(prompt.tokens, count * prompt.block_tokens)

    def hold(self, prompt: Prompt) -> None:
        for block in reversed(prompt.blocks):  # the end of a prompt is evicted before its beginning
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while self._tokens is not None and len(self._blocks) * prompt.block_tokens > self._tokens:
            self._blocks.popitem(last=False)


class Router:
    """One worker: what it knows of the nodes."""

    def __init__(self, caches: Sequence[Cache], index: IndexState) -> None:
        self.caches = caches
        self._index = index
        self._trust = [1.0] * NODES
        self._assigned = [0.0] * NODES
        self._last_s = 0.0
        self._turn = 0
        self._random = random.Random(1)

    def choose(self, policy: Policy, prompt: Prompt) -> tuple[int, Reason]:
        elapsed_s, self._last_s = prompt.at_s - self._last_s, prompt.at_s
        self._assigned = [fading.faded(tokens, elapsed_s) for tokens in self._assigned]
        nodes = [
            Node(
                f"node-{slot}",
                slot,
                prefill_tokens_per_s=RATE_TOKENS_PER_S,
                assigned_tokens=self._assigned[slot],
                index=self._index,
                trust=self._trust[slot],
            )
            for slot in range(NODES)
        ]
        matches = {slot: found for slot, cache in enumerate(self.caches) if (found := cache.matched(prompt))}
        key = prompt.blocks[min(len(prompt.blocks), max(1, KEY_TOKENS // prompt.block_tokens)) - 1]
        ask = Ask(prompt.tokens, matches, key, TTFT_S, TTFT_PER_TOKEN_S, TBT_S)
        decision = choose(policy, ask, nodes, self._random.random(), turn=self._turn)
        slot = decision.slot
        assert slot is not None, "an idle node takes everything"
        self._turn += 1
        self._assigned[slot] += decision.uncached_tokens
        return slot, decision.reason

    def heard(self, slot: int, promised_tokens: int, cached_tokens: int) -> None:
        if promised_tokens:
            kept = min(1.0, cached_tokens / promised_tokens)
            self._trust[slot] += TRUST_SHARE * (kept - self._trust[slot])


def read(path: Path) -> list[Prompt]:
    return [prompt_of(arrival) for arrival in traces.read(path).arrivals]


def prompt_of(arrival: Arrival) -> Prompt:
    if arrival.text is None:
        return Prompt(arrival.at_s, arrival.prompt_tokens, arrival.block_ids, arrival.block_tokens)
    size = TEXT_BLOCK_TOKENS * prompts.TEXT_BYTES_PER_TOKEN
    text = arrival.text.encode()
    return Prompt(
        arrival.at_s,
        -(-len(text) // prompts.TEXT_BYTES_PER_TOKEN),
        list(chained(text[start : start + size] for start in range(0, len(text), size))),
        TEXT_BLOCK_TOKENS,
    )


def chained(blocks: Iterator[bytes]) -> Iterator[int]:
    name = 0
    for block in blocks:
        name = xxhash.xxh3_64_intdigest(block, name)
        yield name


def replay(
    requests: Sequence[Prompt], policy: Policy, *, exact: bool, routers: int = 1, hashed: bool = True
) -> dict[str, Any]:
    """`hashed`: cold prompts go by hash where knowledge is not exact."""
    caches = [Cache(CACHE_TOKENS) for _ in range(NODES)]
    index = IndexState.EXACT if exact or not hashed else IndexState.FALLBACK
    workers = [
        Router(caches if exact else [Cache(None) for _ in range(NODES)], index) for _ in range(routers)
    ]
    dice = random.Random(2)
    work, counts, hits = [0] * NODES, [0] * NODES, 0
    for prompt in requests:
        worker = dice.choice(workers)
        slot, _ = worker.choose(policy, prompt)
        promised, cached = worker.caches[slot].matched(prompt), caches[slot].matched(prompt)
        worker.heard(slot, promised, cached)
        if not exact:
            worker.caches[slot].hold(prompt)
        caches[slot].hold(prompt)
        hits += cached
        work[slot] += prompt.tokens - cached
        counts[slot] += 1
    return {
        "token_hit": round(hits / sum(prompt.tokens for prompt in requests), 4),
        "work_max_over_mean": round(max(work) * NODES / sum(work), 3),
        "work_min_over_mean": round(min(work) * NODES / sum(work), 3),
        "requests_max_over_mean": round(max(counts) * NODES / sum(counts), 3),
    }


def pooled(requests: Sequence[Prompt]) -> float:
    """The hit rate of one cache with the room of all."""
    cache, hits = Cache(NODES * CACHE_TOKENS), 0
    for prompt in requests:
        hits += cache.matched(prompt)
        cache.hold(prompt)
    return round(hits / sum(prompt.tokens for prompt in requests), 4)


def of_trace(requests: Sequence[Prompt]) -> dict[str, Any]:
    aware = Policy.CACHE_AWARE
    found: dict[str, Any] = {
        "requests": len(requests),
        "tokens": sum(prompt.tokens for prompt in requests),
        "pooled_token_hit": pooled(requests),
        "exact": {policy.value: replay(requests, policy, exact=True) for policy in Policy},
        "own history": {aware.value: replay(requests, aware, exact=False)},
        "own history, four routers": {aware.value: replay(requests, aware, exact=False, routers=4)},
        "own history, four routers, cold prompts not by hash": {
            aware.value: replay(requests, aware, exact=False, routers=4, hashed=False)
        },
        "own history, cold prompts not by hash": {
            aware.value: replay(requests, aware, exact=False, hashed=False)
        },
    }
    for module, constant, values in (
        (predicting, "FORECAST_SHARE", (0.0, 0.02, 0.05, 0.1, 0.2, 0.5)),
        (fading, "HALF_LIFE_S", (15.0, 60.0, 240.0)),
        (cache_aware, "STICKY_SHARE", (0.5, 0.8, 1.0)),
    ):
        for value in values:
            with mock.patch.object(module, constant, value):
                variations = found.setdefault("variations of cache-aware, exact", {})
                variations[f"{constant} {value:g}"] = replay(requests, aware, exact=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--traces", type=Path, required=True, help="folder with the recorded traces")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results.write(
        {
            "benchmark": "router/quality",
            "machine": machine.describe(),
            "nodes": NODES,
            "cache_tokens_per_node": CACHE_TOKENS,
            "traces": {name: of_trace(read(arguments.traces / file)) for name, file in FILES.items()},
        },
        arguments.json,
    )


if __name__ == "__main__":
    main()
