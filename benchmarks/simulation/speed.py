"""How fast the simulator is: simulated seconds per second, on one core.

    python -m benchmarks.simulation.speed --traces FOLDER --json benchmarks/simulation/results/speed.json

One node with an 8B model at 80 % of its goodput; the recorded 1,200 s of the Mooncake conversation over 8 nodes; and
over many, at as many times the rate.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import msgspec
from benchmarks import machine
from benchmarks.engine import results

from drift_engine.bench import shaping, traces
from drift_engine.bench.results import Slo, Workload
from drift_engine.bench.traces import Arrival, Trace
from drift_engine.simulation.studies import Study

SLO = Slo(ttft_ms=1000, ttft_per_token_ms=0.1, tbt_ms=25, attainment_target=0.95)
CONVERSATION = "mooncake_conversation_first_1200s.jsonl.gz"


def study(trace: Trace, arrivals: list[Arrival], nodes: int) -> Study:
    return Study(
        arrivals=arrivals,
        workload=Workload(trace=trace.name, format=trace.format),
        slo=SLO,
        model="llama-8b",
        hardware="h200",
        nodes=nodes,
    )


def one_node(trace: Trace) -> dict[str, float]:
    arrivals = list(shaping.shape(trace, shaping.Shape(requests=500, spread=True, rate_scale=0.2)))
    one = study(trace, arrivals, 1)
    found = one.sweep().result.sweep
    assert found is not None
    assert found.goodput_rps is not None
    rate_rps = 0.8 * found.goodput_rps
    result = one.run(rate_rps / one.rate_rps).result
    assert result.realtime_factor is not None
    return {"rate_rps": rate_rps, "realtime_factor": result.realtime_factor, "simulated_s": result.duration_s}


def many_nodes(trace: Trace, nodes: int, copies: int, duration_s: float | None) -> dict[str, float]:
    """The trace `copies` times at once, each copy with blocks of its own."""
    arrivals = shaping.shape(trace, shaping.Shape(spread=True, duration_s=duration_s))
    offset = 1 + max(max(arrival.block_ids) for arrival in arrivals)
    together = sorted(
        (
            msgspec.structs.replace(
                arrival,
                at_s=arrival.at_s + copy / copies,
                block_ids=tuple(block + copy * offset for block in arrival.block_ids),
            )
            for copy in range(copies)
            for arrival in arrivals
        ),
        key=lambda arrival: arrival.at_s,
    )
    renumbered = [msgspec.structs.replace(arrival, index=index) for index, arrival in enumerate(together)]
    one = study(trace, renumbered, nodes)
    start_s = time.monotonic()
    result = one.run().result
    return {
        "nodes": nodes,
        "requests": result.requests,
        "simulated_s": result.duration_s,
        "wall_s": time.monotonic() - start_s,
        "attainment": result.attainment or 0.0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--traces", type=Path, required=True, help="folder with the recorded traces")
    parser.add_argument("--nodes", type=int, default=1000, help="of the last run")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    trace = traces.read(arguments.traces / CONVERSATION)
    found: dict[str, Any] = {
        "one node at 80 % of its goodput": one_node(trace),
        "1,200 s over 8 nodes": many_nodes(trace, 8, 1, None),
        "60 s over many nodes": many_nodes(trace, arguments.nodes, arguments.nodes // 8, 60.0),
    }
    results.write(
        {"benchmark": "simulation/speed", "machine": machine.describe(), "runs": found}, arguments.json
    )


if __name__ == "__main__":
    main()
