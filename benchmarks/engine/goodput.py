"""What share of requests each mode serves within the promise, on this machine's cores, at equal load.

    python -m benchmarks.engine.goodput --json benchmarks/engine/results/goodput.json

A random-weight 117M shape serves three kinds of workloads under two TBT targets each. The offered rate of a cell is
0.9 of the one that `fused` is predicted to bear, found by simulating this machine with what the core learned of it at
its start. Modes take turns within a cell on the same arrivals. `goodput_rps` is the rate of the requests that kept
both bounds.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch
from benchmarks import machine, workloads
from benchmarks.engine import local_core, replays, results, shapes
from benchmarks.simulation import this_machine

from drift_engine import models, wire
from drift_engine.bench import metrics
from drift_engine.bench.results import Slo
from drift_engine.bench.traces import Arrival
from drift_engine.options import NodeOptions, SloOptions
from drift_engine.simulation import sweeping
from drift_engine.simulation.running import Simulation

MODES = (wire.Mode.FUSED, wire.Mode.MUX, wire.Mode.AUTO)
ATTAINMENT = 0.9
LOAD = 0.9
SCALE = 0.5
"""Of all lengths: two cores are slow."""

Kind = Callable[..., list[Arrival]]


def cell(model: Path, kind: Kind, slo: SloOptions, seconds: float) -> dict[str, Any]:
    rate_rps = LOAD * _bearable_rps(model, kind, slo, seconds)
    arrivals = _arrivals(kind, rate_rps, seconds)
    found: dict[str, Any] = {}
    for mode in MODES:
        core = _core(model, mode, slo)
        try:
            vocabulary = models.read_config(model).vocab_size
            records = replays.replay(core, arrivals, vocabulary=vocabulary, timeout_s=10 * seconds)
            stats = core.mailbox.stats
            assert stats is not None
            active_s = {str(what): seconds_ for what, seconds_ in stats.activity_s_total.items()}
        finally:
            core.close()
        del core
        gc.collect()
        summary = metrics.summarize(records, _slo(slo))
        found[mode] = {
            "attainment": summary["attainment"],
            "ttft_attainment": summary["ttft_attainment"],
            "tbt_attainment": summary["tbt_attainment"],
            "goodput_rps": (summary["attainment"] or 0.0) * rate_rps,
            "ttft_ms_p50": summary["ttft_ms"].p50,
            "ttft_ms_p90": summary["ttft_ms"].p90,
            "tbt_ms_p50": summary["tbt_ms"].p50,
            "tbt_ms_p99": summary["tbt_ms"].p99,
            "active_s": active_s,
        }
        print(kind.__name__, slo.tbt_ms, mode, found[mode], flush=True)
    return {"requests": len(arrivals), "rate_rps": rate_rps, "modes": found}


def _bearable_rps(model: Path, kind: Kind, slo: SloOptions, seconds: float) -> float:
    """At which simulated `fused` keeps the promise."""
    core = _core(model, wire.Mode.FUSED, slo)
    try:
        spec = this_machine.spec(core, model, wire.Mode.FUSED, slo.targets, 1e-3)
        latency = core.latency.snapshot()
    finally:
        core.close()
    arrivals = _arrivals(kind, 1.0, 2 * seconds)

    def run(scale: float) -> tuple[float, bool]:
        faster = [msgspec.structs.replace(arrival, at_s=arrival.at_s / scale) for arrival in arrivals]
        records = Simulation(spec, latency, nodes=1).run(faster)
        attainment = metrics.summarize(records, _slo(slo))["attainment"] or 0.0
        return attainment, attainment >= ATTAINMENT

    return sweeping.highest(run).rate_scale or 0.1


def _core(model: Path, mode: wire.Mode, slo: SloOptions) -> local_core.LocalCore:
    return local_core.LocalCore(
        NodeOptions(model=str(model), mode=mode, slo=slo, device="cpu", kv_bytes=1 << 30), model
    )


def _arrivals(kind: Kind, rate_rps: float, seconds: float) -> list[Arrival]:
    return kind(rate_rps, max(16, round(rate_rps * seconds)), scale=SCALE, seed=3)


def _slo(slo: SloOptions) -> Slo:
    return Slo(
        ttft_ms=slo.ttft_ms,
        ttft_per_token_ms=slo.ttft_per_token_ms,
        tbt_ms=slo.tbt_ms,
        attainment_target=ATTAINMENT,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="of arrivals in each run")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cells: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        model = shapes.write(Path(folder), shapes.build(shapes.LLAMA_120M))
        gc.collect()
        for kind in (workloads.long_prompts, workloads.chats, workloads.agents):
            for tbt_ms in (80.0, 200.0):
                slo = SloOptions(ttft_ms=1500, ttft_per_token_ms=2.0, tbt_ms=tbt_ms)
                name = f"{kind.__name__}, TBT {tbt_ms:g} ms"
                cells[name] = cell(model, kind, slo, arguments.seconds)
    results.write(
        {
            "benchmark": "engine/goodput",
            "machine": machine.describe(),
            "model": "llama 117M, float32",
            "attainment": ATTAINMENT,
            "cells": cells,
        },
        arguments.json,
    )


if __name__ == "__main__":
    main()
