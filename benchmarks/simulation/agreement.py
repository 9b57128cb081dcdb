"""A core that computes and a core that is simulated, on the same arrivals: do they agree?

    python -m benchmarks.simulation.agreement --json benchmarks/simulation/results/agreement.json

A random-weight 117M shape and drift-tiny serve each workload on this machine's cores. What the core learned of its
passes, and what its loop added to each, is all that the simulation is told; it then plays the same arrivals. Rates
are well below what the machine bears: above it waiting grows without a bound, and with it every difference.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
from pathlib import Path
from typing import Any

import torch
from benchmarks import machine, workloads
from benchmarks.engine import local_core, replays, results, shapes
from benchmarks.simulation import this_machine

import drift_tiny
from drift_engine import models, wire
from drift_engine.bench import metrics
from drift_engine.bench.records import RequestRecord
from drift_engine.bench.results import Slo
from drift_engine.bench.traces import Arrival
from drift_engine.options import NodeOptions, SloOptions
from drift_engine.simulation.running import Simulation

MAX_RUNNING = 64


def compare(model: Path, mode: wire.Mode, arrivals: list[Arrival], slo: SloOptions) -> dict[str, Any]:
    options = NodeOptions(
        model=str(model), mode=mode, slo=slo, device="cpu", kv_bytes=1 << 30, max_running=MAX_RUNNING
    )
    core = local_core.LocalCore(options, model)
    config = models.read_config(model)
    try:
        measured = replays.replay(core, arrivals, vocabulary=config.vocab_size)
        spec = this_machine.spec(core, model, mode, slo.targets, this_machine.overhead_s(core))
    finally:
        core.close()
    simulated = Simulation(spec, core.latency.snapshot(), nodes=1).run(arrivals)
    return _sides(measured, simulated, 1e3 * spec.overhead_s)


def _sides(
    measured: list[RequestRecord], simulated: list[RequestRecord], overhead_ms: float
) -> dict[str, Any]:
    cpu, sim = (metrics.summarize(records, Slo()) for records in (measured, simulated))
    sides = {
        name: {"cpu": of(cpu), "sim": of(sim), "ratio": of(sim) / of(cpu)}
        for name, of in (
            ("tpot_ms_p50", lambda side: side["tpot_ms"].p50),
            ("tpot_ms_mean", lambda side: _tpot_mean(measured if side is cpu else simulated)),
            ("ttft_ms_p50", lambda side: side["ttft_ms"].p50),
            ("ttft_ms_p90", lambda side: side["ttft_ms"].p90),
            ("e2e_ms_p50", lambda side: side["e2e_ms"].p50),
        )
    }
    return {"requests": cpu["requests"], "overhead_ms": overhead_ms, **sides}


def _tpot_mean(records: list[RequestRecord]) -> float:
    found = [value for record in records if (value := metrics.tpot_ms(record)) is not None]
    return sum(found) / len(found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="of each workload")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seconds = arguments.seconds
    cells: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        large = shapes.write(Path(folder), shapes.build(shapes.LLAMA_120M))
        gc.collect()
        for name, model, scale, slo, rates_rps in (
            ("117M", large, 0.5, SloOptions(ttft_ms=2000, tbt_ms=150), (0.4, 0.25, 0.25)),
            (
                "drift-tiny",
                drift_tiny.checkpoint_path(),
                1.0,
                SloOptions(ttft_ms=400, tbt_ms=40),
                (2.0, 1.0, 1.0),
            ),
        ):
            kinds = (workloads.chats, workloads.long_prompts, workloads.agents)
            for kind, rate_rps in zip(kinds, rates_rps, strict=True):
                for mode in (wire.Mode.FUSED, wire.Mode.MUX):
                    arrivals = kind(rate_rps, max(8, round(rate_rps * seconds)), scale=scale, seed=1)
                    cells[f"{name}, {kind.__name__}, {mode}"] = compare(model, mode, arrivals, slo)
    results.write(
        {"benchmark": "simulation/agreement", "machine": machine.describe(), "cells": cells}, arguments.json
    )


if __name__ == "__main__":
    main()
