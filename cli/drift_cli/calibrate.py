"""`drift calibrate`: what passes take on this machine, and what the latency model makes of it."""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from drift_cli.up import check_engine, service_of
from drift_engine import options
from drift_operator.errors import LocalError
from drift_operator.local import planning

SURVEY_MODULE = "drift_engine.core.surveying"


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, at least 0")
    return seconds


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-f", "--file", type=Path, help="a DriftService in YAML (default: the embedded model drift-tiny)"
    )
    parser.add_argument("--model", help="another model: a folder, hf://OWNER/NAME, ...")
    parser.add_argument(
        "--grid", type=Path, metavar="OUT.jsonl", help="write every pass that was timed, one JSON line each"
    )
    parser.add_argument(
        "--budget",
        type=_seconds,
        default=60.0,
        metavar="S",
        help="seconds for the grid, after the calibration that a node makes (default: %(default)g)",
    )


def run(args: argparse.Namespace) -> int:
    """0, or 1 where the core could not start. Raises LocalError."""
    service = service_of(args.file, args.model)
    check_engine(service)
    plan = planning.plan(
        service,
        host="127.0.0.1",
        port=0,
        spare=[0] * planning.spare_ports(service),
        control_token="",
        log_level="warning",
        environ=os.environ,
    )
    node = plan.nodes[0]
    wanted = msgspec.structs.replace(node.options, latency_file=None)  # measured now, not remembered
    argv = [sys.executable, "-m", SURVEY_MODULE, "--options", options.dump(wanted)]
    console = Console()
    with (
        _grid(args.grid) as grid,  # first: what can't be kept is not measured
        subprocess.Popen(
            [*argv, "--budget-s", str(args.budget)],
            stdout=subprocess.PIPE,
            env={**os.environ, **node.variables},
        ) as process,
    ):
        assert process.stdout is not None
        head: dict[str, Any] = {}
        curves: list[dict[str, Any]] = []
        timed: list[dict[str, Any]] = []
        try:
            for line in process.stdout:
                found = msgspec.json.decode(line)
                {"Head": head.update, "Curves": curves.append, "Timed": timed.append}[found["type"]](found)
                if found["type"] == "Timed":
                    grid.write(line)
        except BaseException:
            process.terminate()
            raise
        if process.wait() != 0:
            return 1
    console.print(_table(head, curves))
    errors = [abs(row["predicted_s"] / row["seconds"] - 1) for row in timed]
    if errors:
        off = sum(errors) / len(errors)
        console.print(f"{len(errors)} passes of the grid: the curves are off by {off:.0%} on average")
    return 0


def _grid(path: Path | None) -> Any:
    """Raises LocalError."""
    if path is None:
        return Path(os.devnull).open("wb")
    try:
        return path.open("wb")
    except OSError as error:
        raise LocalError(f"--grid: {path}: can't be written: {error.strerror}") from error


def _table(head: dict[str, Any], curves: list[dict[str, Any]]) -> Table:
    """Milliseconds by lane size."""
    table = Table(
        title=f"{head['hardware']}, {head['parameters'] / 1e6:.0f}M parameters, {head['dtype']}",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),  # nine columns in the 80 characters of a terminal
    )
    table.add_column("SMs" if head["device"] != "cpu" else "cores", justify="right", no_wrap=True)
    first = curves[0]
    for tokens in first["prefill_s"]:
        table.add_column(f"prefill\n{tokens}", justify="right", no_wrap=True)
    for rows in first["decode_s"]:
        table.add_column(f"decode\n{rows} x 1k", justify="right", no_wrap=True)
    table.add_column("beside\nprefill", justify="right", no_wrap=True)
    table.add_column("prefill\ntokens/s", justify="right", no_wrap=True)
    for row in curves:
        times = [*row["prefill_s"].values(), *row["decode_s"].values(), row["beside_prefill_s"]["8"]]
        table.add_row(
            str(row["sms"]),
            *(f"{1e3 * seconds:.1f}" for seconds in times),
            f"{row['prefill_tokens_per_s']:,.0f}",
        )
    table.caption = "ms of one pass alone on its lane; beside prefill: 8 rows, a bound that 19 of 20 keep"
    return table
