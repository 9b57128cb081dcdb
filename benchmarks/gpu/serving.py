"""Step `serving`: the core's whole loop over the 8B shape with 32 requests at once."""

from __future__ import annotations

import random
import statistics
import time
from typing import Any

from benchmarks.gpu.cores import LocalCore, Turn
from benchmarks.gpu.reports import Report
from benchmarks.gpu.setups import Setup

from drift_engine import wire

REQUESTS = 32
KINDS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "sampled": {"temperature": 0.8, "top_p": 0.9, "top_k": 50},
}


def run(report: Report, *, dry_run: bool) -> None:
    setup = Setup(dry_run)
    runner = setup.runner()
    vocab = setup.config.vocab_size
    prompt_tokens, new_tokens = (20, 4) if dry_run else (512, 128)
    requests = 4 if dry_run else REQUESTS
    for graphs in (True, False):
        device = setup.open(runner, max_running=requests, graphs=graphs)
        core = LocalCore(runner, device, max_running=requests)
        numbers = random.Random(0)

        def batch(
            name: str, sampling: dict[str, Any], numbers: random.Random = numbers
        ) -> dict[str, tuple[list[int], wire.Sampling]]:
            ask = wire.Sampling(max_tokens=new_tokens, ignore_eos=True, **sampling)
            return {
                f"{name}-{i}": (numbers.choices(range(vocab), k=prompt_tokens), ask) for i in range(requests)
            }

        for kind, sampling in KINDS.items():
            core.run(batch(f"warm-{kind}", sampling))  # compiles kernels, captures graphs
            start_s = time.perf_counter()
            turns = list(core.turns(batch(kind, sampling)))
            seconds = time.perf_counter() - start_s
            row = {
                "kind": kind,
                "graphs": graphs,
                "requests": requests,
                "prompt_tokens": prompt_tokens,
                "new_tokens": new_tokens,
                "seconds": seconds,
                "new_tokens_per_s": requests * new_tokens / seconds,
            }
            report.add("serving", row | decode_steps(turns, requests))
        device.close()


def decode_steps(turns: list[Turn], running: int) -> dict[str, float]:
    """Of the steps in which every request got a token and none ended: pure decode at the full batch."""
    full = [turn for turn in turns if turn.tokens == turn.running == running][1:]
    if not full:
        return {"decode_steps": 0}
    return {
        "decode_steps": len(full),
        "step_ms": statistics.median(turn.wall_s for turn in full) * 1e3,
        "forward_ms": statistics.median(turn.forward_s for turn in full) * 1e3,
        "overhead_ms": statistics.median(turn.wall_s - turn.forward_s for turn in full) * 1e3,
    }
