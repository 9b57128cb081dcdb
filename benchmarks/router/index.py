"""What the router's prefix index costs: microseconds per request, nanoseconds per page of events, bytes per entry.

    python -m benchmarks.router.index --json benchmarks/router/results/index.json

The index is of eight nodes that hold a million tokens each and has learned as many prompts as its limit takes, so
that its tables are far larger than the processor's caches. Every prompt of a round is another one; each begins with
one of a few system prompts and is new from its middle on. A time is the median of the rounds, with the garbage
collector off. Memory is a process's own, which holds one table alone, at its best and at its worst fill.
"""

from __future__ import annotations

import argparse
import functools
import gc
import itertools
import multiprocessing
import os
import random
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec
from benchmarks import machine
from benchmarks.engine import results

from drift_engine import hashing
from drift_router.index import blocks, events, hints
from drift_router.index.prefixes import PrefixIndex

T = TypeVar("T")

LIMIT_BYTES = 256 << 20
NODES, NODE_PAGES, PAGE_TOKENS, TOKEN_BYTES = 8, 65_536, 16, 4
ROUNDS, WARM_PROMPTS = 301, 10_000
TEXT_KIB = (1, 4, 16, 48)
SYSTEM_BYTES = 8192
FILLS = (699_000, 699_100)
"""Entries just before and just after a table of two to the twentieth places grows, two thirds of them used."""


class Prompt(NamedTuple):
    text: bytes
    pages: list[int]
    header: bytes


class Prompts:
    """Conversations: half of each text was learned by the index and is held by one node, the rest is new."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._systems = [self._random.randbytes(SYSTEM_BYTES) for _ in range(4)]

    def pages(self, count: int) -> list[int]:
        return [self._random.getrandbits(64) for _ in range(count)]

    def make(self, text_bytes: int) -> Prompt:
        text = (self._random.choice(self._systems)[: text_bytes // 4] + self._random.randbytes(text_bytes))[
            :text_bytes
        ]
        tokens = text_bytes // TOKEN_BYTES
        pages = self.pages(tokens // PAGE_TOKENS)
        listed = [(index, name) for index, name in enumerate(pages) if name % hashing.SAMPLE == 0]
        listed = listed[:: -(-len(listed) // hints.MAX_PAGES) or 1]
        names = ",".join(f"{index}:{name:x}" for index, name in listed)
        return Prompt(text, pages, f"{PAGE_TOKENS};{tokens};0;{names}".encode())


ROOT = blocks.root(b"tenant", b"model")


def learn(index: PrefixIndex, prompt: Prompt) -> None:
    found = hints.parse(prompt.header)
    assert found is not None
    index.learned(blocks.split(prompt.text, ROOT), found)


def median(times_ns: Iterable[int], share: float = 1.0) -> float:
    return round(statistics.median(times_ns) * share, 2)


def timed_ns(act: Callable[[], object]) -> int:
    start = time.perf_counter_ns()
    act()
    return time.perf_counter_ns() - start


def times_ns(act: Callable[[T], object], given: Iterable[T]) -> list[int]:
    return [timed_ns(functools.partial(act, each)) for each in given]


def full_index(prompts: Prompts) -> PrefixIndex:
    index = PrefixIndex(LIMIT_BYTES)
    for slot in range(NODES):
        index.restore(slot, prompts.pages(NODE_PAGES))
    for _ in range(WARM_PROMPTS):
        learn(index, prompts.make(32 << 10))
    return index


def per_request_us(index: PrefixIndex, prompts: Prompts, text_bytes: int) -> dict[str, float]:
    """Of the five things that the index does for one request, and how much of a prompt was found."""
    times: dict[str, list[int]] = {name: [] for name in ("split", "match", "sent", "parse", "learned")}
    found_share = []
    olds = [prompts.make(text_bytes // 2) for _ in range(ROUNDS)]
    for slot, old in enumerate(olds):
        learn(index, old)
        index.stored(slot % NODES, old.pages)
    for slot, old in enumerate(olds):
        node, now_s = slot % NODES, slot / 200
        new = prompts.make(text_bytes)
        text = old.text + new.text[len(old.text) :]
        split, taught = blocks.split(text, ROOT), hints.parse(new.header)
        assert taught is not None
        matched = index.match(split.names, now_s)
        found_share.append(split.ends[matched[node] - 1] / len(text) if node in matched else 0.0)
        acts: tuple[Callable[[], object], ...] = (
            functools.partial(blocks.split, text, ROOT),
            functools.partial(index.match, split.names, now_s),
            functools.partial(index.sent, node, split.names, now_s),
            functools.partial(hints.parse, new.header),
            functools.partial(index.learned, split, taught),
        )
        for name, act in zip(times, acts, strict=True):
            times[name].append(timed_ns(act))
    return {
        "blocks": len(split.names),
        "listed_pages": new.header.count(b":"),
        "found_share": round(statistics.fmean(found_share), 3),
        **{f"{name}_us": median(values, 1e-3) for name, values in times.items()},
    }


def per_page_ns(index: PrefixIndex, prompts: Prompts) -> dict[str, float]:
    """Of a node's events with 32 pages each, reading their JSON apart; and of its whole state."""
    pages = [prompts.pages(32) for _ in range(ROUNDS)]
    lines = [
        msgspec.json.encode(
            {
                "sequence": number,
                "type": "Stored",
                "block_hashes": names,
                "parent_hash": None,
                "token_ids": list(range(100_000, 100_000 + PAGE_TOKENS * len(names))),
                "page_tokens": PAGE_TOKENS,
            }
        )
        for number, names in enumerate(pages)
    ]
    state = prompts.pages(NODE_PAGES)
    document = msgspec.json.encode({"sequence": 1, "blocks": [[name, name] for name in state]})
    return {
        "parse_event": median(times_ns(events.parse_event, lines), 1 / 32),
        "stored": median(times_ns(functools.partial(index.stored, 0), pages), 1 / 32),
        "removed": median(times_ns(functools.partial(index.removed, 0), pages), 1 / 32),
        "parse_state": median(times_ns(events.parse_state, [document] * 5), 1 / NODE_PAGES),
        "restore": median(times_ns(functools.partial(index.restore, 0), [state] * 5), 1 / NODE_PAGES),
    }


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def texts(index: PrefixIndex, prompts: Prompts, count: int) -> None:
    """Each block with a page of its own, the dearest case."""
    for first in range(0, count, 100):
        names = prompts.pages(min(100, count - first))
        pages = [name - name % hashing.SAMPLE for name in prompts.pages(len(names))]
        ends = list(range(64, 64 * len(names) + 1, 64))
        taught = hints.Hints(PAGE_TOKENS, PAGE_TOKENS * len(names), 0, list(range(len(names))), pages)
        index.learned(blocks.Blocks(names, ends, ends[-1]), taught)


def pages(index: PrefixIndex, prompts: Prompts, count: int) -> None:
    """Each on a node of its own among forty, so that masks are objects of their own."""
    for slot in range(40):
        names = prompts.pages(count // 40)
        index.stored(slot + 10, (name - name % hashing.SAMPLE for name in names))


def promises(index: PrefixIndex, prompts: Prompts, count: int) -> None:
    index.lost(40)
    for _ in range(0, count, 100):
        index.sent(40, prompts.pages(100), 0.0)


def histories(index: PrefixIndex, prompts: Prompts, count: int) -> None:
    index.capacity(40, 1 << 40)
    for _ in range(0, count, 100):
        index.sent(40, prompts.pages(100), 0.0)


def memory(fill: Callable[[PrefixIndex, Prompts, int], None], count: int) -> tuple[float, float]:
    """Bytes per entry: what the process took, and what the index said."""
    prompts, index = Prompts(1), PrefixIndex(16 << 30)
    gc.collect()
    before = resident_bytes()
    fill(index, prompts, count)
    gc.collect()
    return round((resident_bytes() - before) / count, 1), round(index.held_bytes / count, 1)


def bytes_per_entry() -> dict[str, list[dict[str, float]]]:
    """Each in a process of its own."""
    context = multiprocessing.get_context("spawn")
    found: dict[str, list[dict[str, float]]] = {}
    for fill, count in itertools.product((texts, pages, promises, histories), FILLS):
        with context.Pool(1) as pool:
            resident, held = pool.apply(memory, (fill, count))
        found.setdefault(fill.__name__, []).append({"entries": count, "resident": resident, "held": held})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    prompts = Prompts(0)
    index = full_index(prompts)
    gc.collect()
    gc.disable()
    result = {
        "benchmark": "router/index",
        "machine": machine.describe(),
        "setting": {
            "limit_bytes": LIMIT_BYTES,
            "held_bytes": index.held_bytes,
            "nodes": NODES,
            "pages_per_node": NODE_PAGES,
            "page_tokens": PAGE_TOKENS,
            "bytes_per_token": TOKEN_BYTES,
            "rounds": ROUNDS,
        },
        "per_request": {f"{kib} KiB": per_request_us(index, prompts, kib << 10) for kib in TEXT_KIB},
        "ns_per_page": per_page_ns(index, prompts),
        "bytes_per_entry": bytes_per_entry(),
    }
    gc.enable()
    results.write(result, arguments.json)


if __name__ == "__main__":
    main()
