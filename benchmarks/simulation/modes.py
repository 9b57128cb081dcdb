"""Goodput of every mode on simulated H200 nodes: the highest rate at which 95 % of requests keep both bounds.

    python -m benchmarks.simulation.modes --traces FOLDER --json benchmarks/simulation/results/modes.json

Cells are shape x trace x TBT target. One node each; requests as recorded, faster or slower until the promise breaks
(`drift simulate --sweep rate`), within 3 %. Then every mode once more at the same rate, 0.8 of `fused`'s goodput, for
the tails. The TTFT bound is 1 s and what the prompt's uncached tokens add.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from benchmarks import machine
from benchmarks.engine import results

from drift_engine import wire
from drift_engine.bench import shaping, traces
from drift_engine.bench.results import Slo, Workload
from drift_engine.simulation.studies import Study

MODES = (
    wire.Mode.AUTO,
    wire.Mode.MUX,
    wire.Mode.FUSED,
    wire.Mode.MUXWISE,
    wire.Mode.BATCH_TABLE,
)
EQUAL_LOAD = 0.8
TABLE_CONTEXTS = (1.5, 4.0)
"""Mean contexts of the trace, for which `batch-table`'s table is tuned; the best of them counts. A table that fits
the mean misses the TBT target for every longer context."""
ATTAINMENT = 0.95
TTFT_MS = 1000.0


class Workbook(NamedTuple):
    """A trace: its first requests, and the sweep's first rate for an 8B model on one GPU."""

    file: str
    requests: int
    rate_rps: float


WORKBOOKS = {
    "mooncake conversation": Workbook("mooncake_conversation_first_1200s.jsonl.gz", 600, 0.7),
    "mooncake synthetic": Workbook("mooncake_synthetic.jsonl.gz", 600, 1.1),
    "azure conversation": Workbook("azure2023_conversation.csv.gz", 1500, 18.0),
}


class Node(NamedTuple):
    model: str
    gpus: int
    ttft_per_token_ms: float  # four times what a token takes alone
    speed: float  # over the 8B model's


NODES = (
    Node("llama-8b", 1, 0.1, 1.0),
    Node("llama-34b", 1, 0.4, 0.22),
    Node("llama-70b", 2, 0.4, 0.22),
)


class Cell(NamedTuple):
    folder: Path
    node: Node
    trace: str
    tbt_ms: float

    @property
    def name(self) -> str:
        return f"{self.node.model}, {self.trace}, TBT {self.tbt_ms:g} ms"


def measure(cell: Cell, modes: Sequence[wire.Mode], rate_rps: float | None) -> tuple[str, dict[str, Any]]:
    """`rate_rps` is the equal load; None takes it from `fused`, which must be among the modes."""
    studies: dict[wire.Mode, Study] = {}
    found: dict[wire.Mode, dict[str, Any]] = {}
    for mode in modes:
        tuned = TABLE_CONTEXTS if mode is wire.Mode.BATCH_TABLE else (None,)
        for table_contexts in tuned:
            one = study(cell, mode, table_contexts)
            sweep = one.sweep().result.sweep
            assert sweep is not None
            goodput_rps = sweep.goodput_rps or 0.0
            if mode not in found or goodput_rps > found[mode]["goodput_rps"]:
                studies[mode], found[mode] = one, {"goodput_rps": goodput_rps}
                if table_contexts is not None:
                    found[mode]["table_contexts"] = table_contexts
    if rate_rps is None:
        rate_rps = EQUAL_LOAD * found[wire.Mode.FUSED]["goodput_rps"]
    for mode, one in studies.items():
        if not rate_rps:  # `fused` keeps the promise at no rate
            break
        result = one.run(rate_rps / one.rate_rps).result
        found[mode] |= {
            "attainment": result.attainment,
            "ttft_ms_p50": result.ttft_ms.p50,
            "ttft_ms_p90": result.ttft_ms.p90,
            "ttft_ms_p99": result.ttft_ms.p99,
            "tbt_ms_p99": result.tbt_ms.p99,
            "tpot_ms_p50": result.tpot_ms.p50,
        }
    return cell.name, {"equal_load_rps": rate_rps, "modes": found}


def study(cell: Cell, mode: wire.Mode, table_contexts: float | None = None) -> Study:
    book, node = WORKBOOKS[cell.trace], cell.node
    trace = traces.read(cell.folder / book.file)
    arrivals = shaping.shape(trace, shaping.Shape(requests=book.requests, spread=True))
    first_rps = len(arrivals) / (arrivals[-1].at_s - arrivals[0].at_s)
    arrivals = shaping.shape(
        trace,
        shaping.Shape(requests=book.requests, spread=True, rate_scale=book.rate_rps * node.speed / first_rps),
    )
    found = Study(
        arrivals=arrivals,
        workload=Workload(trace=trace.name, format=trace.format),
        slo=Slo(
            ttft_ms=TTFT_MS,
            ttft_per_token_ms=node.ttft_per_token_ms,
            tbt_ms=cell.tbt_ms,
            attainment_target=ATTAINMENT,
        ),
        model=node.model,
        hardware="h200",
        gpus=node.gpus,
        mode=mode,
    )
    if table_contexts is not None:
        contexts = [(a.prompt_tokens + a.output_tokens / 2, a.output_tokens) for a in arrivals]
        mean = sum(tokens * rows for tokens, rows in contexts) / sum(rows for _, rows in contexts)
        tokens = round(table_contexts * mean)
        found.spec = msgspec.structs.replace(found.spec, batch_table_context_tokens=tokens)
    return found


def run(
    cells: Sequence[Cell], modes: Sequence[wire.Mode], loads: Mapping[str, float], processes: int
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    tasks = [(cell, modes, loads.get(cell.name)) for cell in cells]
    with multiprocessing.get_context("spawn").Pool(processes, maxtasksperchild=1) as pool:
        for name, outcome in pool.imap_unordered(_measure, tasks):
            found[name] = outcome
            best = max(mode["goodput_rps"] for mode in outcome["modes"].values())
            shares = {
                mode: round(of["goodput_rps"] / best, 3) for mode, of in outcome["modes"].items() if best
            }
            print(name, f"best {best:.3g}/s", shares, flush=True)
    return {cell.name: found[cell.name] for cell in cells}


def _measure(task: tuple[Cell, Sequence[wire.Mode], float | None]) -> tuple[str, dict[str, Any]]:
    return measure(*task)


def merged(earlier: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """The later result, with what only the earlier one has; every mode says when and of which commit it is."""
    cells: dict[str, Any] = {}
    for result in (earlier, later):
        stamp = {name: result["machine"][name] for name in ("date", "commit")}
        for name, cell in result["cells"].items():
            known = cells.setdefault(name, {**cell, "modes": {}})["modes"]
            known |= {mode: {**stamp, **found} for mode, found in cell["modes"].items()}
    return {**later, "cells": cells}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--traces", type=Path, required=True, help="folder with the recorded traces")
    parser.add_argument("--models", default=",".join(node.model for node in NODES))
    parser.add_argument("--tbt", default="15,25,50", help="targets in ms")
    parser.add_argument("--only", default=",".join(WORKBOOKS), help="traces")
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument(
        "--loads", type=Path, metavar="RESULT.json", help="equal loads of an earlier result, without `fused`"
    )
    parser.add_argument("--into", type=Path, metavar="RESULT.json", help="an earlier result to complete")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    modes = [wire.Mode(name) for name in arguments.modes.split(",")]
    loads: dict[str, float] = {}
    if arguments.loads is not None:
        earlier = json.loads(arguments.loads.read_text())["cells"]
        loads = {name: float(found["equal_load_rps"]) for name, found in earlier.items()}
    cells = [
        Cell(arguments.traces, node, trace, float(tbt_ms))
        for node in NODES
        if node.model in arguments.models.split(",")
        for trace in arguments.only.split(",")
        for tbt_ms in arguments.tbt.split(",")
    ]
    found = {
        "benchmark": "simulation/modes",
        "machine": machine.describe(),
        "attainment": ATTAINMENT,
        "ttft_ms": TTFT_MS,
        "cells": run(cells, modes, loads, arguments.processes),
    }
    if arguments.into is not None:
        found = merged(json.loads(arguments.into.read_text()), found)
    results.write(found, arguments.json)


if __name__ == "__main__":
    main()
