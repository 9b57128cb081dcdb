"""Core throughput against transformers' static-batch generate: one machine, one run, the same weights and prompts.

    python -m benchmarks.engine.throughput --json benchmarks/engine/results/throughput.json

Sixteen equal requests on a random 117M Llama shape in float32; the two take turns, each in its own process with all
cores, and the ratio of the medians is the result. Both must produce the same greedy tokens, or the comparison is
void.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from benchmarks import machine
from benchmarks.engine import local_core, results, shapes

from drift_engine.options import NodeOptions


def prompts(count: int, tokens: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randint(0, 256, (count, tokens), generator=generator)
    return [list(map(int, row)) for row in drawn]


class Baseline:
    """transformers in a process of its own: two OpenMP teams in one process would slow each other down."""

    def __init__(self) -> None:
        self._pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))

    def generate(self, batch: list[list[int]], new_tokens: int) -> tuple[float, list[list[int]]]:
        """Seconds and new tokens; the first call builds the model, which is not counted."""
        return self._pool.submit(_generate, batch, new_tokens).result()

    def close(self) -> None:
        self._pool.shutdown()


@functools.cache
def _model() -> Any:
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    return shapes.build(shapes.LLAMA_120M)


def _generate(batch: list[list[int]], new_tokens: int) -> tuple[float, list[list[int]]]:
    return time_transformers(_model(), batch, new_tokens)


def time_transformers(model: Any, batch: list[list[int]], new_tokens: int) -> tuple[float, list[list[int]]]:
    input_ids = torch.tensor(batch)
    start_s = time.perf_counter()
    with torch.inference_mode():
        output = model.generate(
            input_ids,
            attention_mask=torch.ones_like(input_ids),
            max_new_tokens=new_tokens,
            do_sample=False,
            use_cache=True,
        )
    return time.perf_counter() - start_s, output[:, input_ids.shape[1] :].tolist()


def time_drift(
    core: local_core.LocalCore, batch: list[list[int]], new_tokens: int
) -> tuple[float, list[list[int]]]:
    start_s = time.perf_counter()
    tokens = core.run(batch, new_tokens)
    return time.perf_counter() - start_s, list(tokens.values())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    baseline = Baseline()
    with tempfile.TemporaryDirectory() as folder:
        path = shapes.write(Path(folder), shapes.build(shapes.LLAMA_120M))
        options = NodeOptions(model=str(path), device="cpu", dtype="float32", prefix_cache=False)
        core = local_core.LocalCore(options, path)
        batch = prompts(arguments.requests, arguments.prompt_tokens)
        _, theirs = baseline.generate(batch, 8)
        _, ours = time_drift(core, batch, 8)
        same = ours == theirs
        rounds = []
        for _ in range(arguments.rounds):
            theirs_s, _ = baseline.generate(batch, arguments.new_tokens)
            ours_s, _ = time_drift(core, batch, arguments.new_tokens)
            rounds.append({"transformers_s": theirs_s, "drift_s": ours_s})
        core.close()
    baseline.close()
    tokens = arguments.requests * arguments.new_tokens
    theirs_s = results.median([r["transformers_s"] for r in rounds])
    ours_s = results.median([r["drift_s"] for r in rounds])
    result = {
        "benchmark": "engine/throughput",
        "machine": machine.describe(),
        "shape": "llama 117M, float32, random weights",
        "requests": arguments.requests,
        "prompt_tokens": arguments.prompt_tokens,
        "new_tokens": arguments.new_tokens,
        "same_greedy_tokens": same,
        "transformers_tokens_per_s": tokens / theirs_s,
        "drift_tokens_per_s": tokens / ours_s,
        "ratio": theirs_s / ours_s,
        "rounds": rounds,
    }
    results.write(result, arguments.json)


if __name__ == "__main__":
    main()
