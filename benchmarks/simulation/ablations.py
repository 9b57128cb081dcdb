"""What each mechanism of `mux` is worth: the same simulated nodes without it.

    python -m benchmarks.simulation.ablations --traces FOLDER --json benchmarks/simulation/results/ablations.json

An 8B model on an H200. Goodput by a sweep as in `modes`, and the latencies of every variant at the same rate, 0.8 of
the whole mode's goodput. A variant changes one thing in the planner for as long as its runs last.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
from benchmarks import machine
from benchmarks.engine import results
from benchmarks.simulation import modes

from drift_engine import wire
from drift_engine.latency import LatencyModel
from drift_engine.latency.loads import Load
from drift_engine.scheduling import mux, order, pacing, two_lanes
from drift_engine.scheduling.admission import Room
from drift_engine.scheduling.plans import Plan
from drift_engine.scheduling.predictions import Predictions
from drift_engine.scheduling.views import Cut, State
from drift_engine.simulation.studies import Study

STATIC_DECODE_SMS = (24, 40, 64)
"""Of 132. The best of them stands for a split that somebody tuned by hand."""

CELLS = (("mooncake conversation", 25.0), ("azure conversation", 15.0))

Variant = Callable[[], AbstractContextManager[Any]]

_plan, _line = two_lanes.plan, order.line


def blocking_merge() -> AbstractContextManager[Any]:
    """The host waits for a prefill from the launch of its last layers on: no decode step is launched meanwhile."""

    def plan(policy: two_lanes.Policy, state: State, room: Room, latency: Predictions, now_s: float) -> Plan:
        cuts = state.lanes.cuts
        if cuts and cuts[-1].launched == cuts[-1].layers and state.lanes.flight is None:
            return Plan(policy.mode)
        return _plan(policy, state, room, latency, now_s)

    return mock.patch.object(two_lanes, "plan", plan)


def whole_phase_launch() -> AbstractContextManager[Any]:
    """All layers at once: a change of the split, or a shorter prompt, waits for the end of the prefill."""

    def layers(
        cut: Cut | None, total: int, prefill_s: float | None, horizon_s: float, *, carries: bool
    ) -> int:
        return total if cut is None else total - cut.launched

    return mock.patch.object(two_lanes, "_layers", layers)


def first_come() -> AbstractContextManager[Any]:
    """No deadlines, nobody overtakes."""
    stack = ExitStack()

    def line(waiting: Sequence[Any], tokens_per_s: float, now_s: float) -> tuple[list[Any], float]:
        _, until_s = _line(waiting, tokens_per_s, now_s)
        return list(waiting), until_s

    policy = two_lanes.Policy(wire.Mode.MUX, mux.split, mux.batch_tokens, two_lanes.never)
    stack.enter_context(mock.patch.object(order, "line", line))
    stack.enter_context(mock.patch("drift_engine.scheduling.planner.MUX", policy))
    return stack


def no_guard() -> AbstractContextManager[Any]:
    """Steps beside a prefill are predicted as if they were alone."""

    def beside_s(self: LatencyModel, load: Load, sms: int, neighbour: Load) -> float | None:
        return self.pass_s(load, sms)

    return mock.patch.object(LatencyModel, "beside_s", beside_s)


def told_at_once() -> AbstractContextManager[Any]:
    """First tokens do not wait for the step that their rows join."""
    return mock.patch.object(pacing, "waits", return_value=False)


VARIANTS: dict[str, Variant] = {
    "whole": ExitStack,
    "blocking merge": blocking_merge,
    "whole-phase launch": whole_phase_launch,
    "first come, first served": first_come,
    "no guard": no_guard,
    "first tokens told at once": told_at_once,
}


def measure(folder: Path, trace: str, tbt_ms: float) -> tuple[str, dict[str, Any]]:
    cell = modes.Cell(folder, modes.NODES[0], trace, tbt_ms)
    found: dict[str, Any] = {}
    rate_rps = 0.0
    for name, variant in VARIANTS.items():
        study = modes.study(cell, wire.Mode.MUX)
        with variant():
            found[name], rate_rps = _outcome(study, rate_rps)
    statics = {}
    for sms in STATIC_DECODE_SMS:
        study = modes.study(cell, wire.Mode.MUX)
        only = tuple(split for split in study.spec.splits if split.decode_sms == sms)
        study.spec = msgspec.structs.replace(study.spec, splits=only)
        statics[sms], _ = _outcome(study, rate_rps)
    best = max(statics, key=lambda sms: float(statics[sms]["goodput_rps"]))
    found["static split"] = {"decode_sms": best, **statics[best]}
    found["static splits"] = {str(sms): outcome["goodput_rps"] for sms, outcome in statics.items()}
    return cell.name, found


def _outcome(study: Study, rate_rps: float) -> tuple[dict[str, Any], float]:
    """The first variant sets the rate at which all are compared."""
    swept = study.sweep().result.sweep
    assert swept is not None
    goodput_rps = swept.goodput_rps or 0.0
    rate_rps = rate_rps or modes.EQUAL_LOAD * goodput_rps
    result = study.run(rate_rps / study.rate_rps).result
    return {
        "goodput_rps": goodput_rps,
        "attainment": result.attainment,
        "ttft_ms_p50": result.ttft_ms.p50,
        "ttft_ms_p99": result.ttft_ms.p99,
        "tbt_ms_p99": result.tbt_ms.p99,
        "tbt_ms_worst_gap_p99": result.tbt_ms.worst_gap_p99,
    }, rate_rps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--traces", type=Path, required=True, help="folder with the recorded traces")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with multiprocessing.get_context("spawn").Pool(arguments.processes, maxtasksperchild=1) as pool:
        found = dict(pool.starmap(partial(measure, arguments.traces), CELLS))
    results.write(
        {"benchmark": "simulation/ablations", "machine": machine.describe(), "cells": found}, arguments.json
    )


if __name__ == "__main__":
    main()
