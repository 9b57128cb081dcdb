"""`drift simulate`: a trace on simulated nodes. The work is in `drift_engine.simulation`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from drift_cli import tables, workloads
from drift_engine import timelines, wire
from drift_engine.bench import results
from drift_engine.errors import EngineError
from drift_engine.simulation import dispatching, studies

EXIT_USAGE = 2


def configure(parser: argparse.ArgumentParser) -> None:
    """All options; docs/simulate.md explains them."""
    parser.description = "What a workload would do on nodes that are not here. See docs/simulate.md."
    nodes = parser.add_argument_group("nodes")
    nodes.add_argument("--model", default="llama-8b", metavar="SHAPE", help=studies.MODEL_HELP)
    nodes.add_argument("--hardware", default="h200", metavar="H", help=studies.HARDWARE_HELP)
    nodes.add_argument("--gpus", type=int, default=1, metavar="G", help="of one node (tensor parallelism)")
    nodes.add_argument("--nodes", type=int, default=1, metavar="N", help="equal nodes")
    nodes.add_argument("--mode", type=wire.Mode, default=wire.Mode.AUTO, choices=list(wire.Mode))
    nodes.add_argument("--routing", default="least-load", choices=dispatching.names())
    nodes.add_argument(
        "--max-running", type=int, default=256, metavar="R", help="requests that decode at once"
    )
    nodes.add_argument("--chunk-tokens", type=int, metavar="T", help="fixed size of a fused step")
    workloads.add_load(parser)
    workloads.add_promise(parser)
    search = parser.add_argument_group("search")
    search.add_argument("--sweep", choices=("rate",), help="find the highest rate that keeps the promise")
    output = parser.add_argument_group("output")
    output.add_argument("--json", type=Path, metavar="OUT", help="write the result; - for standard output")
    output.add_argument("--log", type=Path, metavar="TOKENS.jsonl", help="write the token-time log")
    output.add_argument("--timeline", type=Path, metavar="FILE", help="of node 0: .json for Perfetto, .svg")
    output.add_argument("--quiet", action="store_true", help="no table")


def run(options: argparse.Namespace) -> int:
    """The exit code: 0, 2 for options that can't be used. Raises EngineError."""
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        chosen = workloads.choose(options)
        study = studies.Study(
            arrivals=chosen.arrivals,
            workload=chosen.workload,
            slo=workloads.promise(options),
            model=options.model,
            hardware=options.hardware,
            gpus=options.gpus,
            nodes=options.nodes,
            mode=options.mode,
            routing=options.routing,
            max_running=options.max_running,
            chunk_tokens=options.chunk_tokens,
            keep_spans=options.timeline is not None,
            command=workloads.command(sys.argv[1:]),
        )
        if options.sweep and not study.slo.bounded:
            raise ValueError("--sweep needs a promise: --slo-ttft-ms, --slo-tbt-ms or both")
        if options.sweep and not studies.window_s(chosen.arrivals):
            raise ValueError(
                "--sweep needs requests that arrive at different times: these are at one instant"
            )
    except ValueError as error:
        errors.print(f"drift simulate: {error}", markup=False)
        return EXIT_USAGE
    if options.timeline is not None:
        timelines.check(options.timeline)
    for path in (options.json, options.log):  # a sweep of hours must not end in a mistyped folder
        if path is not None and path != Path("-") and not path.absolute().parent.is_dir():
            raise EngineError(f"{path}: can't be written: {path.absolute().parent} is no folder")
    outcome = study.sweep() if options.sweep else study.run()
    if options.json == Path("-"):
        sys.stdout.buffer.write(results.dump(outcome.result))
        sys.stdout.buffer.flush()
    else:
        if options.json is not None:
            results.write(outcome.result, options.json)
        if not options.quiet:
            Console().print(tables.of(outcome.result))
    if options.log is not None:
        studies.write_log(options.log, outcome.records)
    if options.timeline is not None:
        try:
            timelines.write(options.timeline, outcome.spans)
        except OSError as error:
            raise EngineError(f"{options.timeline}: can't be written: {error.strerror}") from error
    sweep = outcome.result.sweep
    if sweep is not None and sweep.goodput_rps is None:
        errors.print(
            "warning: the promise is kept at no rate; the result is of the slowest run", markup=False
        )
    if sweep is not None and all(tried.kept for tried in sweep.tried):
        errors.print(
            "warning: the promise is kept at every rate; the result is of the fastest run", markup=False
        )
    return 0
