"""The whole control loop against other ways to use the same eight H200: goodput, tails, GPU-seconds.

    python -m benchmarks.simulation.headline --traces FOLDER --json benchmarks/simulation/results/headline.json

An 8B model, one GPU a node, the first requests of each trace at several times their recorded rate. Every system gets
the same requests, the same cost model and the same router code:

    ours          cache-aware router, mode `auto`, the split and weight levers
    round robin   aggregated nodes (`fused`), requests in turn
    KV-routed     aggregated nodes (`fused`), the cache-aware router
    5P3D, 4P4D    prefill and decode on nodes of their own; the cache-aware router before the first, least load before
                  the second; KV is pushed layer by layer over a link of --link Gbit/s

A good request keeps both bounds; that of its gaps is read by the request's P99, by its worst gap and by their mean,
which is all that `dynamo_peer.py` can read of its peer's.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import machine
from benchmarks.engine import results

from drift_cli import roles
from drift_cli.roles import Roles
from drift_cli.steering import Levers
from drift_cli.systems import System
from drift_engine import wire
from drift_engine.bench import shaping, traces
from drift_engine.bench.results import Result, Slo, Workload
from drift_engine.bench.traces import Trace
from drift_engine.hardware import shapes
from drift_engine.simulation.dispatching import Making
from drift_engine.simulation.studies import Study
from drift_router.snapshots import Policy

NODES = 8
MODEL, HARDWARE = "llama-8b", "h200"
SLO = Slo(ttft_ms=1000, ttft_per_token_ms=0.1, tbt_ms=25, attainment_target=0.95)
"""As `modes.py`: four times what an uncached token takes alone."""
PROMISE = {"ttft_ms": SLO.ttft_ms, "per_token_ms": SLO.ttft_per_token_ms, "tbt_ms": SLO.tbt_ms}
"""As result files have it."""
LINK_GBIT_PER_S = 400.0
"""One InfiniBand NDR port for each GPU, as in HGX machines."""

SCALES = {
    "mooncake conversation": (1.0, 4.0, 7.0),
    "mooncake synthetic": (1.0, 4.0, 7.0),
    "azure conversation": (7.0, 24.0, 40.0),
}
"""Times the recorded rate, up to more than eight nodes bear; Azure's prompts are short."""

REQUESTS = 1000

FILES = {
    "mooncake conversation": "mooncake_conversation_first_1200s.jsonl.gz",
    "mooncake synthetic": "mooncake_synthetic.jsonl.gz",
    "azure conversation": "azure2023_conversation.csv.gz",
}


class Setup(NamedTuple):
    mode: wire.Mode
    policy: Policy
    moved: Levers = Levers.OFF
    roles: Roles | None = None


SETUPS = {
    "ours": Setup(wire.Mode.AUTO, Policy.CACHE_AWARE, Levers.SPLIT_WEIGHTS),
    "round robin": Setup(wire.Mode.FUSED, Policy.ROUND_ROBIN),
    "KV-routed": Setup(wire.Mode.FUSED, Policy.CACHE_AWARE),
    "5P3D": Setup(wire.Mode.FUSED, Policy.CACHE_AWARE, roles=Roles(5, 3)),
    "4P4D": Setup(wire.Mode.FUSED, Policy.CACHE_AWARE, roles=Roles(4, 4)),
}


def study(
    trace: Trace,
    requests: int,
    scale: float,
    setup: Setup,
    gbit_per_s: float,
    dispatcher: Making | None = None,
) -> Study:
    """`dispatcher` in place of the setup's router."""
    shape = shaping.Shape(requests=requests, spread=True, rate_scale=scale)
    system = System(
        slo=SLO, policy=setup.policy, mode=setup.mode, moved=setup.moved, nodes=NODES, split=setup.roles
    )
    link = None
    if setup.roles is not None:
        link = roles.link(gbit_per_s, shapes.read(MODEL, 1))
    return Study(
        arrivals=shaping.shape(trace, shape),
        workload=Workload(trace=trace.name, format=trace.format, rate_scale=scale, arrivals="spread"),
        slo=SLO,
        model=MODEL,
        hardware=HARDWARE,
        nodes=NODES,
        mode=setup.mode,
        routing=setup.policy.value,
        dispatcher=dispatcher or system.dispatcher,
        attach=system.attach,
        link=link,
    )


def figures(result: Result) -> dict[str, Any]:
    worst, mean = result.by_worst_gap, result.by_mean_gap
    assert worst is not None
    assert mean is not None
    return {
        "rate_rps": result.rate_rps,
        "attainment": result.attainment,
        "goodput_rps": result.goodput_rps,
        "attainment_by_worst_gap": worst.attainment,
        "goodput_rps_by_worst_gap": worst.goodput_rps,
        "attainment_by_mean_gap": mean.attainment,
        "goodput_rps_by_mean_gap": mean.goodput_rps,
        "ttft_p50_ms": result.ttft_ms.p50,
        "ttft_p99_ms": result.ttft_ms.p99,
        "gap_p99_ms": result.tbt_ms.p99,
        "worst_gap_p99_ms": result.tbt_ms.worst_gap_p99,
        "gpu_s_per_good": result.gpu_s_per_good,
        "cached_share": result.cached_share,
        "requests": result.requests,
        "failed": result.failed,
    }


def scales(trace: str, asked: str | None) -> Sequence[float]:
    return SCALES[trace] if asked is None else tuple(map(float, asked.split(",")))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--traces", type=Path, required=True, help="folder with the recorded traces")
    parser.add_argument("--only", default=",".join(FILES), help="traces")
    parser.add_argument("--scales", help="times the recorded rate, instead of the table's")
    parser.add_argument("--setups", default=",".join(SETUPS))
    parser.add_argument("--requests", type=int, default=REQUESTS, help="the first ones of each trace")
    parser.add_argument("--link", type=float, default=LINK_GBIT_PER_S, metavar="GBIT_PER_S")
    parser.add_argument("--into", type=Path, metavar="RESULT.json", help="an earlier result to complete")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    cells: dict[str, Any] = {}
    if arguments.into is not None:
        cells = json.loads(arguments.into.read_text())["cells"]
    stamp = machine.describe()

    def write() -> None:
        found = {
            "benchmark": "simulation/headline",
            "machine": stamp,
            "nodes": f"{NODES} x {HARDWARE}, {MODEL}",
            "slo": PROMISE,
            "link_gbit_per_s": arguments.link,
            "requests": arguments.requests,
            "cells": cells,
        }
        results.write(found, arguments.json)

    for name in arguments.only.split(","):
        trace = traces.read(arguments.traces / FILES[name])
        for scale in scales(name, arguments.scales):
            cell = cells.setdefault(f"{name}, {scale:g}x", {})
            run(cell, trace, scale, arguments.setups.split(","), arguments.requests, arguments.link)
            if arguments.json is not None:
                write()  # so that an hour's run that is cut short leaves what it has
    if arguments.json is None:
        write()


def run(
    cell: dict[str, Any], trace: Trace, scale: float, setups: Sequence[str], requests: int, gbit_per_s: float
) -> None:
    for name in setups:
        start_s = time.process_time()
        cell[name] = figures(study(trace, requests, scale, SETUPS[name], gbit_per_s).run().result)
        cell[name]["cpu_s"] = round(time.process_time() - start_s, 1)
        print(
            trace.name,
            f"{scale:g}x {name}: {cell[name]['attainment']:.1%}, P99 TTFT {cell[name]['ttft_p99_ms']:.0f} ms,",
            f"{cell[name]['cpu_s']} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
