"""What each policy does to first tokens when there is a load: recorded conversations on eight simulated H200 nodes.

    python -m benchmarks.router.load --traces FOLDER --json benchmarks/router/results/load.json

The router misjudges every node's rate by a log-normal factor of 30 %, another one with every seed; it knows caches
and queues. Requests of one recorded bin are spread over it. `drift simulate --routing ... --routing-error 0.3` is one
run.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import machine
from benchmarks.engine import results

from drift_cli import routing
from drift_engine.bench import shaping, traces
from drift_engine.bench.results import Slo, Workload
from drift_engine.simulation.studies import Study
from drift_router.snapshots import Policy

FILES = {
    "mooncake conversation": "mooncake_conversation_first_1200s.jsonl.gz",
    "mooncake synthetic": "mooncake_synthetic.jsonl.gz",
}
RATES = (1.0, 3.0, 5.0)
NODES = 8
SLO = Slo(ttft_ms=1000, ttft_per_token_ms=0.1, tbt_ms=25, attainment_target=0.95)
ERROR = 0.3


class Run(NamedTuple):
    folder: Path
    trace: str
    policy: Policy
    rate: float
    error: float
    seed: int
    requests: int


def measure(run: Run) -> tuple[Run, dict[str, Any]]:
    trace = traces.read(run.folder / FILES[run.trace])
    wish = shaping.Shape(requests=run.requests, spread=True, rate_scale=run.rate)
    study = Study(
        arrivals=shaping.shape(trace, wish),
        workload=Workload(trace=trace.name, format=trace.format),
        slo=SLO,
        model="llama-8b",
        hardware="h200",
        nodes=NODES,
        routing=run.policy.value,
        dispatcher=routing.making(run.policy, SLO, run.error, run.seed),
    )
    start_s = time.monotonic()
    result = study.run().result
    assert result.cached_tokens is not None
    assert result.prompt_tokens
    return run, {
        "offered_rps": result.rate_rps,
        "ttft_ms_p50": result.ttft_ms.p50,
        "ttft_ms_p90": result.ttft_ms.p90,
        "ttft_ms_p99": result.ttft_ms.p99,
        "ttft_attainment": result.ttft_attainment,
        "attainment": result.attainment,
        "tbt_ms_p99": result.tbt_ms.p99,
        "token_hit": result.cached_tokens / result.prompt_tokens,
        "wall_s": time.monotonic() - start_s,
    }


def middle(runs: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Median over the seeds, of each figure by itself."""
    return {field: results.median([run[field] for run in runs]) for field in runs[0]}


def run(tasks: Sequence[Run], processes: int) -> dict[str, Any]:
    found: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for task, figures in pool.imap(measure, tasks):
            cell = (task.trace, f"{task.rate:g}x, error {task.error:g}", task.policy.value)
            found.setdefault(cell, []).append(figures)
            print(*cell, {name: round(value, 3) for name, value in figures.items()}, flush=True)
    told: dict[str, Any] = {}
    for (trace, load, policy), runs in found.items():
        told.setdefault(trace, {}).setdefault(load, {})[policy] = middle(runs)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--traces", type=Path, required=True, help="folder with the recorded traces")
    parser.add_argument("--only", default=",".join(FILES), help="traces")
    parser.add_argument("--policies", default=",".join(Policy))
    parser.add_argument("--requests", type=int, default=600, help="the first of each trace")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rates", default=",".join(f"{rate:g}" for rate in RATES))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    tasks = [
        Run(arguments.traces, trace, Policy(policy), float(rate), ERROR, seed, arguments.requests)
        for trace in arguments.only.split(",")
        for rate in arguments.rates.split(",")
        for policy in arguments.policies.split(",")
        for seed in range(arguments.seeds)
    ]
    found = run(tasks, arguments.processes)
    results.write(
        {
            "benchmark": "router/load",
            "machine": machine.describe(),
            "nodes": NODES,
            "requests": arguments.requests,
            "seeds": arguments.seeds,
            "rate_error": ERROR,
            "slo": {"ttft_ms": SLO.ttft_ms, "ttft_per_token_ms": SLO.ttft_per_token_ms, "tbt_ms": SLO.tbt_ms},
            "traces": found,
        },
        arguments.json,
    )


if __name__ == "__main__":
    main()
