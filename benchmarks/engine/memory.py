"""Resident memory of a node with drift-tiny: after start, and its growth over 10,000 requests.

    python -m benchmarks.engine.memory --json benchmarks/engine/results/memory.json

Requests of mixed lengths, eight at a time; a tenth of them is abandoned by its client. Memory first fills the KV pool
(bounded, 336 MB for drift-tiny), so the slope is taken over the second half, and the pool is kept small here.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from pathlib import Path

import aiohttp
from benchmarks import machine
from benchmarks.engine import results, served

import drift_tiny

MIB = 1024 * 1024


async def load(node: served.Node, requests: int, every: int) -> list[tuple[int, float]]:
    """Sends the requests; returns (requests done, resident MiB) every so many."""
    samples: list[tuple[int, float]] = []
    draws = random.Random(5)
    left = iter(range(requests))
    done = 0

    async def client(session: aiohttp.ClientSession) -> None:
        nonlocal done
        for index in left:
            body = {
                "model": "drift-tiny",
                "prompt": [draws.randrange(256) for _ in range(draws.randrange(1, 120))],
                "max_tokens": draws.randrange(1, 12),
                "stream": index % 2 == 0,
            }
            async with session.post(node.url + "/v1/completions", json=body) as response:
                if response.status != 200:
                    raise RuntimeError(await response.text())
                if index % 10 == 0:
                    await response.content.readany()  # then the connection is dropped
                    response.close()
                else:
                    await response.read()
            done += 1
            if done % every == 0:
                samples.append((done, node.resident_bytes() / MIB))

    async with aiohttp.ClientSession(timeout=served.REQUEST_TIMEOUT) as session:
        await asyncio.gather(*(client(session) for _ in range(8)))
    return samples


def slope(samples: list[tuple[int, float]]) -> tuple[float, float]:
    """Least-squares MiB per 1,000 requests, and its standard error."""
    xs = [count / 1000 for count, _ in samples]
    ys = [mib for _, mib in samples]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    found = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread
    residual = sum((y - mean_y - found * (x - mean_x)) ** 2 for x, y in zip(xs, ys, strict=True))
    return found, (residual / (len(xs) - 2) / spread) ** 0.5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with served.node(
        model=str(drift_tiny.checkpoint_path()),
        served_model_name="drift-tiny",
        device="cpu",
        max_model_len_tokens=2048,
        kv_bytes=8 * MIB,
    ) as node:
        start_mib = node.resident_bytes() / MIB
        samples = asyncio.run(load(node, arguments.requests, max(1, arguments.requests // 100)))
    settled = samples[len(samples) // 2 :]
    per_1000, error = slope(settled)
    with served.node(model=str(drift_tiny.checkpoint_path()), device="cpu") as node:
        asyncio.run(served.together(node.url, [[index % 256] * 20_000 for index in range(6)], 4))
        full_mib = node.resident_bytes() / MIB
    results.write(
        {
            "benchmark": "engine/memory",
            "machine": machine.describe(),
            "requests": arguments.requests,
            "resident_mib_after_start": start_mib,
            "resident_mib_at_end": samples[-1][1],
            "resident_mib_default_pool_filled": full_mib,
            "growth_mib_per_1000_requests": {"slope": per_1000, "standard_error": error},
            "samples": samples,
        },
        arguments.json,
    )


if __name__ == "__main__":
    main()
