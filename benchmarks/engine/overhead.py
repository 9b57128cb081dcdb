"""The core's own time per decode step: everything but the model's forward, at 32 running requests.

    python -m benchmarks.engine.overhead --json benchmarks/engine/results/overhead.json

Measured inside the core, per step: planning, packing inputs, drawing tokens, booking pages, encoding nothing (the
channel is a list). Greedy and sampled requests apart, on drift-tiny's shape, where the forward hides least.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.engine import local_core, results

import drift_tiny
from drift_engine import wire
from drift_engine.options import NodeOptions

SAMPLINGS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "sampled": {"temperature": 0.8, "top_p": 0.9, "top_k": 50},
}


def measure(
    core: local_core.LocalCore, running: int, context: int, steps: int, sampling: dict[str, Any]
) -> Any:
    for index in range(running):
        core.mailbox.inbox.append(
            wire.Submit(
                f"{time.monotonic_ns()}-{index}",
                [(index * 7 + position) % 500 for position in range(context)],
                wire.Sampling(max_tokens=steps + 50, ignore_eos=True, seed=index, **sampling),
                time.monotonic(),
            )
        )
    per_step_ms, forward_ms = [], []
    while True:
        before = core.mailbox.stats
        outputs = core.step()
        after = core.mailbox.stats
        full = after is not None and len(outputs) == running == after.running
        if before is not None and after is not None and full and after.steps_total == before.steps_total + 1:
            per_step_ms.append((after.overhead_s_total - before.overhead_s_total) * 1e3)
            forward_ms.append((after.forward_s_total - before.forward_s_total) * 1e3)
        if len(per_step_ms) >= steps or (after is not None and not after.running and not after.waiting):
            break
    while core.mailbox.stats is not None and core.mailbox.stats.running:
        core.step()
    return {
        "steps": len(per_step_ms),
        "overhead_ms": {
            "median": statistics.median(per_step_ms),
            "mean": statistics.fmean(per_step_ms),
            "p99": statistics.quantiles(per_step_ms, n=100)[98],
        },
        "forward_ms_median": statistics.median(forward_ms),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--running", type=int, default=32)
    parser.add_argument("--context-tokens", type=int, default=300)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    path = drift_tiny.checkpoint_path()
    core = local_core.LocalCore(NodeOptions(model=str(path), device="cpu"), path)
    result = {
        "benchmark": "engine/overhead",
        "machine": machine.describe(),
        "running": arguments.running,
        "context_tokens": arguments.context_tokens,
        **{
            name: measure(core, arguments.running, arguments.context_tokens, arguments.steps, sampling)
            for name, sampling in SAMPLINGS.items()
        },
    }
    core.close()
    results.write(result, arguments.json)


if __name__ == "__main__":
    main()
