"""What each mechanism of `mux` is worth on this machine's cores: the same core without it, at the same load.

    python -m benchmarks.engine.ablations --json benchmarks/engine/results/ablations.json

The variants are those of `benchmarks/simulation/ablations.py` but for fixed splits: two cores split in one way only.
Workloads, model and load are those of `goodput`, under the strict TBT target.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
from pathlib import Path
from typing import Any

import torch
from benchmarks import machine, workloads
from benchmarks.engine import goodput, results, shapes
from benchmarks.engine.pace import Pace
from benchmarks.simulation.ablations import VARIANTS, Variant

from drift_engine import wire
from drift_engine.bench.traces import Arrival
from drift_engine.options import SloOptions

SLO = SloOptions(ttft_ms=1500, ttft_per_token_ms=2.0, tbt_ms=goodput.STRICT_TBT_MS)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="of arrivals in each run")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pace = Pace()
    cells: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        model = shapes.write(Path(folder), shapes.build(shapes.LLAMA_120M))
        gc.collect()
        for kind in (workloads.long_prompts, workloads.chats):
            rate_rps = goodput.OFFERED_RPS[kind.__name__, SLO.tbt_ms]
            arrivals = goodput.of_kind(kind, rate_rps, arguments.seconds, seed=goodput.SEED)
            found: dict[str, Any] = {}
            for name, variant in VARIANTS.items():

                def run(variant: Variant = variant, arrivals: list[Arrival] = arrivals) -> dict[str, Any]:
                    with variant():
                        return goodput.outcome(model, wire.Mode.MUX, SLO, arrivals, arguments.seconds)

                told, paces = pace.run(run)
                found[name] = told | {"machine_pace": paces}
                print(kind.__name__, name, found[name], flush=True)
            cells[kind.__name__] = {"requests": len(arrivals), "rate_rps": rate_rps, "variants": found}
    results.write(
        {
            "benchmark": "engine/ablations",
            "machine": machine.describe(),
            "model": "llama 117M, float32",
            "tbt_ms": SLO.tbt_ms,
            "cells": cells,
        },
        arguments.json,
    )


if __name__ == "__main__":
    main()
