"""TTFT of a conversation's second turn against its first: what the prefix cache saves, through HTTP.

    python -m benchmarks.engine.reuse --json benchmarks/engine/results/reuse.json

Turn one is a new 2,000-token prompt; turn two sends it again with the answer and 30 more tokens. Each round is a new
conversation; the result is the ratio of the medians.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
from pathlib import Path

from benchmarks import machine
from benchmarks.engine import results, served, shapes

import drift_tiny


def turns(url: str, prompt_tokens: int, answer_tokens: int, rounds: int) -> list[dict[str, float]]:
    draws = random.Random(3)
    measured = []
    for _ in range(rounds):
        prompt = [draws.randrange(256) for _ in range(prompt_tokens)]
        _, (first,) = asyncio.run(served.together(url, [prompt], answer_tokens, every_token=True))
        longer = prompt + [draws.randrange(256) for _ in range(30)]
        _, (second,) = asyncio.run(served.together(url, [longer], answer_tokens, every_token=True))
        measured.append(
            {
                "first_ttft_s": first.ttft_s,
                "second_ttft_s": second.ttft_s,
                "second_cached_tokens": second.cached_tokens,
            }
        )
    return measured


def summary(measured: list[dict[str, float]]) -> dict[str, object]:
    first_s = results.median([m["first_ttft_s"] for m in measured])
    second_s = results.median([m["second_ttft_s"] for m in measured])
    return {
        "first_ttft_ms": first_s * 1e3,
        "second_ttft_ms": second_s * 1e3,
        "ratio": second_s / first_s,
        "rounds": measured,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompt-tokens", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result: dict[str, object] = {
        "benchmark": "engine/reuse",
        "machine": machine.describe(),
        "prompt_tokens": arguments.prompt_tokens,
    }
    with served.node(model=str(drift_tiny.checkpoint_path()), device="cpu") as node:
        turns(node.url, 200, 8, 2)
        result["drift-tiny"] = summary(turns(node.url, arguments.prompt_tokens, 8, arguments.rounds))
    with tempfile.TemporaryDirectory() as folder:
        path = shapes.write(Path(folder), shapes.build(shapes.LLAMA_120M))
        with served.node(model=str(path), device="cpu") as node:
            turns(node.url, 200, 8, 2)
            result["llama 117M, float32"] = summary(
                turns(node.url, arguments.prompt_tokens, 8, arguments.rounds)
            )
    results.write(result, arguments.json)


if __name__ == "__main__":
    main()
