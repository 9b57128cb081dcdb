"""What it is worth that nodes tell routers what would go before a new prompt, by its length.

    python -m benchmarks.simulation.waits --traces FOLDER --json benchmarks/simulation/results/waits.json

The eight nodes of `headline.py` with its cache-aware router and no levers, once as they are and once with reports
that tell only how much is queued in all; round robin beside them, for which it makes no difference. Four rates around
twice what the nodes bear and around what they bear: one run's share moves by a percent for chance, the mean by less.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from benchmarks import machine
from benchmarks.engine import results
from benchmarks.simulation import headline

from drift_cli.routing import SimulatedRouter
from drift_engine import wire
from drift_engine.bench import traces
from drift_engine.simulation.dispatching import NodeState
from drift_router.snapshots import Policy

SCALES = (3.8, 3.9, 4.0, 4.1, 6.7, 6.8, 6.9, 7.0)
"""Times the recorded rate."""

HALF = 5.0
"""What is above is an overload."""

TRACES = ("mooncake conversation", "mooncake synthetic")


class InAll(NamedTuple):
    """A node that does not say what goes before whom."""

    node: NodeState

    def report(self, now_s: float) -> wire.Report:
        return msgspec.structs.replace(self.node.report(now_s), ahead=())


class Uninformed(SimulatedRouter):
    def joined(self, index: int, node: NodeState, at_s: float) -> None:
        super().joined(index, InAll(node), at_s)


def uninformed() -> Uninformed:
    return Uninformed(Policy.CACHE_AWARE, headline.SLO)


class Task(NamedTuple):
    folder: Path
    trace: str
    scale: float
    way: str


WAYS = ("by length", "in all", "round robin")


def figures(task: Task) -> dict[str, Any]:
    trace = traces.read(task.folder / headline.FILES[task.trace])
    setup = headline.SETUPS["round robin" if task.way == "round robin" else "KV-routed"]
    study = headline.study(
        trace,
        headline.REQUESTS,
        task.scale,
        setup,
        headline.LINK_GBIT_PER_S,
        uninformed if task.way == "in all" else None,
    )
    return {"way": task.way, "scale": task.scale, **headline.figures(study.run().result)}


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Way -> means over the rates of each load."""
    return {
        way: {
            load: {
                key: statistics.mean(
                    run[key] for run in runs if run["way"] == way and (run["scale"] > HALF) is over
                )
                for key in ("attainment", "goodput_rps", "ttft_p50_ms", "ttft_p99_ms")
            }
            for load, over in (("what they bear", False), ("twice", True))
        }
        for way in WAYS
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--traces", type=Path, required=True, help="folder with the recorded traces")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    stamp = machine.describe()
    cells: dict[str, Any] = {}
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        for trace in TRACES:
            tasks = [Task(arguments.traces, trace, scale, way) for scale in SCALES for way in WAYS]
            runs = pool.map(figures, tasks, chunksize=1)
            cells[trace] = {"means": summary(runs), "runs": runs}
            print(trace, cells[trace]["means"], flush=True)
    found = {
        "benchmark": "simulation/waits",
        "machine": stamp,
        "nodes": f"{headline.NODES} x {headline.HARDWARE}, {headline.MODEL}",
        "slo": headline.PROMISE,
        "requests": headline.REQUESTS,
        "cells": cells,
    }
    results.write(found, arguments.json)


if __name__ == "__main__":
    main()
