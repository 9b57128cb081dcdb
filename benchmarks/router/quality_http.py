"""Which requests meet their cache, and how evenly work is spread, through real routers and sockets.

    python -m benchmarks.router.quality_http --trace FILE --peers-venv PEERS \\
        --json benchmarks/router/results/quality_http.json

Recorded requests go through each router to eight dummy nodes that answer at once, so load is no signal. Every block
of 512 tokens is the same characters wherever it occurs: 64, as in published runs, and 2,048, as long as such text is.
16 connections, each sends its next request when its answer has come. Which node got which request is then replayed
over an LRU cache for each, in the order in which answers came. `quality.py` does the same without sockets, with the
trace's time.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.engine import results
from benchmarks.router import dummies, peers
from benchmarks.router.quality import CACHE_TOKENS, NODES, Cache, Prompt, pooled, read

CONNECTIONS = 16
BLOCK_CHARACTERS = (64, 2048)
ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
ANSWER_S = 30.0
TARGET_HIT, TARGET_WORK = 0.255, 1.08

ROUTERS: dict[str, Callable[[peers.Place], list[str]]] = {
    "drift cache-aware": peers.drift("cache-aware"),
    "drift prefix-hash": peers.drift("prefix-hash"),
    "drift least-load": peers.drift("least-load"),
    "drift round-robin": peers.drift("round-robin"),
    "sglang-router cache_aware": peers.sglang("cache_aware"),
    "sglang-router round_robin": peers.sglang("round_robin"),
    "vllm-router cache_aware": peers.vllm("cache_aware"),
    "smg cache_aware": peers.smg("cache_aware"),
    "smg prefix_hash": peers.smg("prefix_hash"),
}


@functools.cache
def text(block: int, characters: int) -> str:
    return "".join(random.Random(block).choices(ALPHABET, k=characters))


def request(prompt: Prompt, characters: int) -> bytes:
    content = "".join([text(block, characters) for block in prompt.blocks])
    return dummies.request(
        {"model": "dummy", "messages": [{"role": "user", "content": content}], "max_tokens": 1}
    )


async def send(port: int, requests: Sequence[bytes], connections: int) -> list[tuple[int, int]]:
    """Places of requests and the ports of their nodes, as answers came. Raises RuntimeError for any other answer."""
    answered: list[tuple[int, int]] = []
    left = iter(enumerate(requests))

    async def one() -> None:
        reader, writer = await asyncio.open_connection(dummies.HOST, port)
        for place, sent in left:
            writer.write(sent)
            answered.append((place, await asyncio.wait_for(_node(reader), ANSWER_S)))
        writer.close()

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(connections):
                group.create_task(one())
    except* (OSError, EOFError, ValueError) as errors:
        raise RuntimeError(f"after {len(answered)} requests: {errors.exceptions[0]}") from errors
    return answered


async def _node(reader: asyncio.StreamReader) -> int:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if not head.startswith(b"http/1.1 200"):
        raise ValueError(head.partition(b"\r\n")[0].decode())
    if b"\r\ntransfer-encoding: chunked" in head:
        body = (await reader.readuntil(b"\r\n0\r\n\r\n")).partition(b"\r\n")[2]
    else:
        length = head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
        body = await reader.readexactly(int(length))
    return int(body.partition(b'"port ')[2].partition(b'"')[0])


def replay(prompts: Sequence[Prompt], answered: Sequence[tuple[int, int]]) -> dict[str, float]:
    """As if each node had a cache."""
    caches: dict[int, Cache] = {}
    work: dict[int, int] = {}
    hits = 0
    for place, node in answered:
        prompt, cache = prompts[place], caches.setdefault(node, Cache(CACHE_TOKENS))
        cached = cache.matched(prompt)
        cache.hold(prompt)
        hits += cached
        work[node] = work.get(node, 0) + prompt.tokens - cached
    mean = sum(work.values()) / NODES
    return {
        "token_hit": round(hits / sum(prompt.tokens for prompt in prompts), 4),
        "work_max_over_mean": round(max(work.values()) / mean, 3),
        "work_min_over_mean": round((min(work.values()) if len(work) == NODES else 0) / mean, 3),
    }


def measure(
    folder: Path,
    upstream: dummies.Upstream,
    prompts: Sequence[Prompt],
    characters: int,
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    python = None if arguments.peers_venv is None else arguments.peers_venv / "bin" / "python"
    requests = [request(prompt, characters) for prompt in prompts]
    told: dict[str, Any] = {}
    for name, command in ROUTERS.items():
        if not any(word in name for word in arguments.routers.split(",")):
            continue
        try:
            with peers.running(command, folder / name.replace(" ", "-"), upstream.ports, python) as router:
                start_s = time.monotonic()
                answered = asyncio.run(send(router.port, requests, arguments.connections))
                wall_s = time.monotonic() - start_s
            told[name] = {**replay(prompts, answered), "wall_s": round(wall_s, 1)}
        except (peers.UnavailableError, RuntimeError) as reason:
            told[name] = {"error": str(reason)}
        print(f"{characters:6} {name:28}", told[name], file=sys.stderr, flush=True)
    return told


def met(ours: dict[str, Any]) -> bool | None:
    if "token_hit" not in ours:
        return None
    return bool(ours["token_hit"] >= TARGET_HIT and ours["work_max_over_mean"] <= TARGET_WORK)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--trace", type=Path, required=True, help="a recorded trace with blocks of 512 tokens"
    )
    parser.add_argument("--peers-venv", type=Path, help="where the peers of pip are installed")
    parser.add_argument(
        "--routers", default="", metavar="NAMES", help=f"of {', '.join(ROUTERS)}; parts will do"
    )
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    parser.add_argument(
        "--characters",
        type=int,
        nargs="+",
        default=BLOCK_CHARACTERS,
        help="of a block (default: %(default)s)",
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if lacking := dummies.missing():
        parser.error(f"needed and not installed: {', '.join(lacking)}")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    described = machine.describe()
    prompts = read(arguments.trace)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        dummies.build(folder)
        with dummies.serving(folder, NODES) as upstream:
            told = {
                str(characters): measure(folder, upstream, prompts, characters, arguments)
                for characters in arguments.characters
            }
    results.write(
        {
            "benchmark": "router/quality_http",
            "machine": described,
            "load_average_1m_after": round(os.getloadavg()[0], 2),
            "peers": peers.versions(arguments.peers_venv and arguments.peers_venv / "bin" / "python"),
            "connections": arguments.connections,
            "trace": arguments.trace.name,
            "requests": len(prompts),
            "nodes": NODES,
            "cache_tokens_per_node": CACHE_TOKENS,
            "pooled_token_hit": pooled(prompts),
            "characters_per_block": told,
            "targets": {
                "token_hit_at_least": TARGET_HIT,
                "work_max_over_mean_at_most": TARGET_WORK,
                "met": {size: met(found.get("drift cache-aware", {})) for size, found in told.items()},
            },
        },
        arguments.json,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
