"""The share of requests that keep both bounds at given rates, mode by mode: to weigh a constant of the planner by.

    python -m benchmarks.simulation.equal_rates --traces FOLDER --cells 'llama-8b/mooncake conversation/25' \
        --base benchmarks/simulation/results/modes_8b_conversation.json --shares 1.0,1.1,1.2 \
        --set scheduling.order.FIRM_TARGETS=4 --into RESULT.json --json RESULT.json

Cells are those of `modes`. Rates are shares of the goodput that `fused` has in the base. One share of 600 requests
moves by a percent for chance, the mean over rates by less.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import machine
from benchmarks.engine import results
from benchmarks.simulation import modes
from benchmarks.simulation.modes import Cell

from drift_engine import wire


class Constant(NamedTuple):
    """Another value of a constant of drift_engine."""

    module: str
    name: str
    value: float

    def take(self) -> None:
        """In this process. Raises AttributeError if there is none of that name."""
        module = importlib.import_module(f"drift_engine.{self.module}")
        setattr(module, self.name, type(getattr(module, self.name))(self.value))


class Task(NamedTuple):
    cell: Cell
    mode: wire.Mode
    rate_rps: float
    constants: tuple[Constant, ...]


def attainment(task: Task) -> float:
    for constant in task.constants:
        constant.take()
    study = modes.study(task.cell, task.mode)
    found = study.run(task.rate_rps / study.rate_rps).result.attainment
    assert found is not None
    return found


def run(tasks: Sequence[Task], processes: int) -> dict[str, Any]:
    """Cell -> mode -> its shares by rate, and their mean."""
    found: dict[str, Any] = {}
    with multiprocessing.get_context("spawn").Pool(processes, maxtasksperchild=1) as pool:
        for task, kept in zip(tasks, pool.imap(attainment, tasks), strict=True):
            modes_of_cell = found.setdefault(task.cell.name, {})
            of_mode = modes_of_cell.setdefault(task.mode.value, {"attainment_by_rps": {}})
            of_mode["attainment_by_rps"][f"{task.rate_rps:.4g}"] = round(kept, 4)
            of_mode["mean"] = round(statistics.mean(of_mode["attainment_by_rps"].values()), 4)
    return found


def parse_cell(text: str, folder: Path) -> Cell:
    """Raises ValueError if there is no such cell."""
    model, trace, tbt_ms = text.split("/")
    (node,) = (node for node in modes.NODES if node.model == model)
    return Cell(folder, node, trace, float(tbt_ms))


def parse_constant(text: str) -> Constant:
    path, _, value = text.partition("=")
    module, _, name = path.rpartition(".")
    return Constant(module, name, float(value))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--traces", type=Path, required=True, help="folder with the recorded traces")
    parser.add_argument("--cells", nargs="+", required=True, metavar="MODEL/TRACE/TBT_MS")
    parser.add_argument("--modes", default="auto,fused")
    parser.add_argument("--shares", default="1.0,1.1,1.2")
    parser.add_argument(
        "--base",
        type=Path,
        nargs="+",
        required=True,
        metavar="RESULT.json",
        help="of `modes`, with the cells",
    )
    parser.add_argument(
        "--set", type=parse_constant, nargs="+", default=[], metavar="MODULE.NAME=VALUE", help="constants"
    )
    parser.add_argument("--into", type=Path, metavar="RESULT.json", help="an earlier result to add to")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    base: dict[str, Any] = {}
    for path in arguments.base:
        base |= json.loads(path.read_text())["cells"]
    constants = tuple(arguments.set)
    cells = [parse_cell(text, arguments.traces) for text in arguments.cells]
    tasks = [
        Task(
            cell, wire.Mode(mode), float(share) * base[cell.name]["modes"]["fused"]["goodput_rps"], constants
        )
        for cell in cells
        for mode in arguments.modes.split(",")
        for share in arguments.shares.split(",")
    ]
    run_now = {
        "machine": machine.describe(),
        "constants": {f"{one.module}.{one.name}": one.value for one in constants},
        "cells": run(tasks, arguments.processes),
    }
    earlier = json.loads(arguments.into.read_text())["runs"] if arguments.into is not None else []
    results.write({"benchmark": "simulation/equal_rates", "runs": [*earlier, run_now]}, arguments.json)


if __name__ == "__main__":
    main()
