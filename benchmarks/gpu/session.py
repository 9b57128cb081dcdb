"""The benchmark's order of events: each step in its own process, bounded in time, its results saved as they come.

A kernel that reads outside its memory ends its process's use of the GPU, and a hung one never returns; neither may
take the other steps with it. Free of torch.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.gpu.reports import Report, write_json

KILL_AFTER_S = 5.0
"""What a step gets after SIGTERM; a process inside the driver may need some time to die."""

RESERVE_S = 3.0
"""Kept for writing the result."""


@dataclass(frozen=True)
class Step:
    """`module`:`function` is called with a Report and whether this is a dry run."""

    name: str
    limit_s: float
    module: str
    function: str = "run"


# In order of worth, should time run out: together they ask for more than one run has, so that a second and a third
# name those that were skipped. Limits are several times what a step is expected to need, and most of the first two is
# compiling; the last ones end by themselves where their time is up. Estimates, not yet measured.
STEPS = (
    Step("machine", 60, "benchmarks.gpu.ceilings"),
    Step("parity", 200, "benchmarks.gpu.kernel_steps", "parity"),
    Step("tokens", 150, "benchmarks.gpu.tokens"),
    Step("splits", 60, "benchmarks.gpu.splits"),
    Step("decode", 100, "benchmarks.gpu.passes", "decode"),
    Step("contention", 90, "benchmarks.gpu.contention"),
    Step("modes", 420, "benchmarks.gpu.modes"),
    Step("grid", 120, "benchmarks.gpu.grid"),
    Step("prefill", 80, "benchmarks.gpu.passes", "prefill"),
    Step("serving", 100, "benchmarks.gpu.serving"),
    Step("foreign", 120, "benchmarks.gpu.foreign"),
    Step("speed", 180, "benchmarks.gpu.kernel_steps", "speed"),
)

Command = Callable[[Step, Path, float], Sequence[str]]
"""The process of a step, which writes its results to the path within the seconds."""


def main(script: Path) -> int:
    arguments = parse(sys.argv[1:])
    if arguments.step is not None:
        return run_step(arguments.step, arguments.json, arguments.limit_s, dry_run=arguments.dry_run)
    names = arguments.steps or [step.name for step in STEPS]
    unknown = set(names) - {step.name for step in STEPS}
    if unknown:
        print(
            f"--steps: {', '.join(sorted(unknown))}: no such step; there are "
            f"{', '.join(step.name for step in STEPS)}",
            file=sys.stderr,
        )
        return 2

    def command(step: Step, path: Path, limit_s: float) -> Sequence[str]:
        flags = ["--dry-run"] if arguments.dry_run else []
        parts = ["--step", step.name, "--json", str(path), "--limit-s", f"{limit_s:.1f}"]
        return [sys.executable, str(script), *parts, *flags]

    result: dict[str, Any] = {
        "benchmark": "gpu",
        "dry_run": arguments.dry_run,
        "machine": machine.describe(),
        "steps": {},
    }
    steps = [step for step in STEPS if step.name in names]
    run_steps(steps, command, result, arguments.json, minutes=arguments.minutes)
    failed = failures(result)
    for line in failed:
        print(line, file=sys.stderr)
    return 1 if failed else 0


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks/gpu/run", description=__doc__)
    parser.add_argument(
        "--json", type=Path, required=True, help="where the result goes; written after each step"
    )
    parser.add_argument(
        "--minutes", type=float, default=9.0, help="for all steps together (default: %(default)s)"
    )
    parser.add_argument("--steps", type=lambda names: names.split(","), help="only these, e.g. parity,decode")
    parser.add_argument(
        "--dry-run", action="store_true", help="tiny shapes on the CPU: tests the benchmark itself"
    )
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--limit-s", type=float, default=600.0, help=argparse.SUPPRESS)
    return parser.parse_args(words)


def run_steps(
    steps: Sequence[Step], command: Command, result: dict[str, Any], path: Path, *, minutes: float
) -> None:
    """Fills `result["steps"]` and writes `result` to `path` after each."""
    deadline_s = time.monotonic() + minutes * 60 - RESERVE_S
    for step in steps:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            outcome: dict[str, Any] = {"status": "skipped", "error": "no time left"}
        else:
            outcome = _outcome(step, command, min(step.limit_s, left_s))
        result["steps"][step.name] = outcome
        write_json(path, result)
        print(f"{step.name:10} {outcome['status']:10} {outcome.get('seconds', 0):6.1f} s", flush=True)


def _outcome(step: Step, command: Command, limit_s: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path, log = Path(folder, "step.json"), Path(folder, "log")
        start_s = time.monotonic()
        with log.open("wb") as output:
            process = subprocess.Popen(
                command(step, path, limit_s), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                status = "ok" if process.wait(limit_s) == 0 else "failed"
            except subprocess.TimeoutExpired:
                status = "timed out"
            finally:
                _end(process)
        outcome: dict[str, Any] = {"status": status, "seconds": round(time.monotonic() - start_s, 1)}
        if path.exists():
            outcome |= json.loads(path.read_text())
        if status != "ok":
            outcome["log"] = log.read_text(errors="replace")[-4000:]
        return outcome


def _end(process: subprocess.Popen[bytes]) -> None:
    """The step and all that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, number)
        try:
            process.wait(KILL_AFTER_S)
        except subprocess.TimeoutExpired:
            continue


def run_step(name: str, path: Path, limit_s: float, *, dry_run: bool) -> int:
    """Inside a step's own process; 1 when it raised, with the traceback in its report."""
    if dry_run:
        # Set before torch is loaded. Tiny shapes gain nothing from threads, and lose much where cores are busy.
        os.environ["OMP_NUM_THREADS"] = "1"
    # Before CUDA starts: streams that share a hardware queue wait for each other. As a node does.
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")
    step = next(step for step in STEPS if step.name == name)
    report = Report(path, limit_s)
    try:
        getattr(importlib.import_module(step.module), step.function)(report, dry_run=dry_run)
    except Exception:
        report.fail(traceback.format_exc())
        return 1
    return 0


def failures(result: dict[str, Any]) -> list[str]:
    """A line for each step that did not end well and each check in one that did not hold."""
    lines = []
    for name, outcome in result["steps"].items():
        if outcome["status"] != "ok":
            reason = (outcome.get("error") or outcome.get("log") or "").strip().rpartition("\n")[2]
            lines.append(f"{name}: {outcome['status']}: {reason}")
        for key, rows in outcome.get("results", {}).items():
            if isinstance(rows, list):
                lines += [f"{name}: {key}: {json.dumps(row)}" for row in rows if _refuted(row)]
    return lines


def _refuted(row: object) -> bool:
    return isinstance(row, dict) and row.get("ok") is False
