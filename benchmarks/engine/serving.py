"""A served node against transformers' static-batch generate: throughput, and TTFT under Poisson arrivals.

    python -m benchmarks.engine.serving --json benchmarks/engine/results/serving.json

One machine, one run, the same random 117M Llama in float32. Throughput: sixteen equal streaming requests, in turns.
TTFT: the same Poisson arrivals for both; the baseline is a server that takes what waits (sixteen at most), runs
`generate` on the batch, and is credited with each first token at the moment its batch has computed it, as if it
streamed. Rate: 60 % of what the baseline's full batches can do, so that neither is overloaded.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import torch
import transformers
from benchmarks import machine
from benchmarks.engine import results, served, shapes
from benchmarks.engine.throughput import prompts, time_transformers

BATCH = 16


class NotePass(transformers.LogitsProcessor):  # type: ignore[misc]
    """Notes the time of the first logits of a batch; streamers only take batches of one."""

    def __init__(self) -> None:
        self.at_s: float | None = None

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        if self.at_s is None:
            self.at_s = time.perf_counter()
        return scores


def static_batches(
    model: Any, arrivals_s: list[float], prompt_list: list[list[int]], new_tokens: int
) -> list[float]:
    """TTFT of every request when a loop of `generate` serves them, in real time."""
    start_s = time.perf_counter()
    ttft_s: list[float] = []
    served_count = 0
    while served_count < len(arrivals_s):
        now_s = time.perf_counter() - start_s
        waiting = [i for i in range(served_count, len(arrivals_s)) if arrivals_s[i] <= now_s][:BATCH]
        if not waiting:
            time.sleep(max(0.0, arrivals_s[served_count] - now_s))
            continue
        note = NotePass()
        batch = torch.tensor([prompt_list[i] for i in waiting])
        with torch.inference_mode():
            model.generate(
                batch,
                attention_mask=torch.ones_like(batch),
                max_new_tokens=new_tokens,
                do_sample=False,
                logits_processor=transformers.LogitsProcessorList([note]),
            )
        assert note.at_s is not None
        ttft_s.extend(note.at_s - start_s - arrivals_s[i] for i in waiting)
        served_count += len(waiting)
    return ttft_s


async def poisson(
    url: str, arrivals_s: list[float], prompt_list: list[list[int]], new_tokens: int
) -> list[float]:
    """TTFT of every request from its scheduled time."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=served.REQUEST_TIMEOUT) as session:
        start_s = time.perf_counter()

        async def one(at_s: float, prompt: list[int]) -> float:
            await asyncio.sleep(max(0.0, at_s - (time.perf_counter() - start_s)))
            answer = await served.stream(session, url, prompt, new_tokens, every_token=True)
            return answer.chunk_times_s[0] - start_s - at_s

        return list(await asyncio.gather(*map(one, arrivals_s, prompt_list)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--arrivals", type=int, default=100)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    model = shapes.build(shapes.LLAMA_120M)
    with tempfile.TemporaryDirectory() as folder:
        path = shapes.write(Path(folder), model)
        batch = prompts(BATCH, arguments.prompt_tokens)
        with served.node(model=str(path), device="cpu", dtype="float32", prefix_cache=False) as node:
            time_transformers(model, batch, 8)
            asyncio.run(served.together(node.url, batch, 8))
            rounds = []
            for _ in range(arguments.rounds):
                theirs_s, _ = time_transformers(model, batch, arguments.new_tokens)
                ours_s, answers = asyncio.run(served.together(node.url, batch, arguments.new_tokens))
                assert all(a.completion_tokens == arguments.new_tokens for a in answers)
                rounds.append({"transformers_s": theirs_s, "drift_http_s": ours_s})
            theirs_s = results.median([r["transformers_s"] for r in rounds])
            ours_s = results.median([r["drift_http_s"] for r in rounds])
            rate_rps = 0.6 * BATCH / theirs_s
            draws = random.Random(7)
            arrivals_s, at_s = [], 0.0
            for _ in range(arguments.arrivals):
                at_s += draws.expovariate(rate_rps)
                arrivals_s.append(at_s)
            many = prompts(arguments.arrivals, arguments.prompt_tokens)
            ours = asyncio.run(poisson(node.url, arrivals_s, many, arguments.new_tokens))
            theirs = static_batches(model, arrivals_s, many, arguments.new_tokens)
    tokens = BATCH * arguments.new_tokens
    results.write(
        {
            "benchmark": "engine/serving",
            "machine": machine.describe(),
            "shape": "llama 117M, float32, random weights",
            "throughput": {
                "requests": BATCH,
                "prompt_tokens": arguments.prompt_tokens,
                "new_tokens": arguments.new_tokens,
                "transformers_tokens_per_s": tokens / theirs_s,
                "drift_http_tokens_per_s": tokens / ours_s,
                "ratio": theirs_s / ours_s,
                "rounds": rounds,
            },
            "poisson": {
                "requests": arguments.arrivals,
                "rate_rps": rate_rps,
                "drift_ttft_s": {"p50": results.quantile(ours, 0.5), "p90": results.quantile(ours, 0.9)},
                "static_batch_ttft_s": {
                    "p50": results.quantile(theirs, 0.5),
                    "p90": results.quantile(theirs, 0.9),
                },
                "p90_ratio": results.quantile(theirs, 0.9) / results.quantile(ours, 0.9),
            },
        },
        arguments.json,
    )


if __name__ == "__main__":
    main()
