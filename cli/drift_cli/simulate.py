"""`drift simulate`: a trace on simulated nodes. The work is in `drift_engine.simulation`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
from rich.console import Console

from drift_cli import roles, systems, tables, workloads
from drift_cli.roles import Roles
from drift_cli.steering import Levers
from drift_cli.systems import System
from drift_engine import launches, timelines, wire
from drift_engine.bench import results
from drift_engine.errors import EngineError
from drift_engine.hardware import shapes
from drift_engine.simulation import studies
from drift_router.snapshots import Policy

EXIT_USAGE = 2

Saying = Callable[[str], None]


def configure(parser: argparse.ArgumentParser) -> None:
    """All options; docs/simulate.md explains them."""
    parser.description = "What a workload would do on nodes that are not here. See docs/simulate.md."
    nodes = parser.add_argument_group("nodes")
    nodes.add_argument("--model", default="llama-8b", metavar="SHAPE", help=studies.MODEL_HELP)
    nodes.add_argument("--hardware", default="h200", metavar="H", help=studies.HARDWARE_HELP)
    nodes.add_argument("--gpus", type=int, default=1, metavar="G", help="of one node (tensor parallelism)")
    nodes.add_argument("--nodes", type=int, default=1, metavar="N", help="equal nodes")
    nodes.add_argument(
        "--mode",
        type=wire.Mode,
        default=wire.Mode.AUTO,
        choices=list(wire.Mode),
        help="how each node shares its device",
    )
    nodes.add_argument(
        "--max-running", type=int, default=256, metavar="R", help="requests that decode at once"
    )
    nodes.add_argument("--chunk-tokens", type=int, metavar="T", help="fixed size of a fused step")
    _add_system(parser)
    nodes.add_argument(
        "--max-nodes", type=int, metavar="N", help="with --levers all; --nodes are the first and the least"
    )
    nodes.add_argument(
        "--fail-node-at",
        type=_loss,
        action="append",
        default=[],
        metavar="T[:NODE]",
        help="a node dies T seconds after the start (the busiest one); may be said several times",
    )
    workloads.add_load(parser)
    workloads.add_promise(parser)
    search = parser.add_argument_group("search")
    search.add_argument("--sweep", choices=("rate",), help="find the highest rate that keeps the promise")
    output = parser.add_argument_group("output")
    output.add_argument("--json", type=Path, metavar="OUT", help="write the result; - for standard output")
    output.add_argument("--log", type=Path, metavar="TOKENS.jsonl", help="write the token-time log")
    output.add_argument("--timeline", type=Path, metavar="FILE", help="of node 0: .json for Perfetto, .svg")
    output.add_argument(
        "--decisions", type=Path, metavar="OUT.jsonl", help="write what the levers moved, and why"
    )
    output.add_argument("--quiet", action="store_true", help="no table")


def _loss(text: str) -> systems.Loss:
    try:
        return systems.read_loss(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _roles(text: str) -> Roles:
    try:
        return roles.read(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _add_system(parser: argparse.ArgumentParser) -> None:
    system = parser.add_argument_group("router and levers")
    system.add_argument(
        "--policy",
        "--routing",
        type=Policy,
        default=Policy.CACHE_AWARE,
        choices=list(Policy),
        dest="routing",
        help="how requests are spread",
    )
    system.add_argument(
        "--routing-error", type=float, default=0.0, metavar="E", help="0.3: rates are misjudged by 30 %%"
    )
    system.add_argument(
        "--roles",
        type=_roles,
        metavar="5P3D",
        help="so many nodes only prefill and so many only decode (simulations only)",
    )
    system.add_argument(
        "--link", type=float, default=400.0, metavar="GBIT_PER_S", help="of each GPU, with --roles"
    )
    system.add_argument(
        "--levers", type=Levers, default=Levers.OFF, choices=list(Levers), help="which the operator moves"
    )
    system.add_argument(
        "--start-up", type=float, default=60.0, metavar="S", help="from a node's making to its first request"
    )


def check_folders(*paths: Path | None) -> None:
    """A sweep of hours must not end in a mistyped folder. Raises EngineError."""
    for path in paths:
        if path is not None and path != Path("-") and not path.absolute().parent.is_dir():
            raise EngineError(f"{path}: can't be written: {path.absolute().parent} is no folder")


def run(options: argparse.Namespace) -> int:
    """The exit code: 0, 2 for options that can't be used. Raises EngineError."""
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        chosen = workloads.choose(options)
        slo = workloads.promise(options)
        system = System(
            slo=slo,
            policy=options.routing,
            rate_error=options.routing_error,
            seed=options.seed,
            mode=options.mode,
            moved=options.levers,
            nodes=options.nodes,
            max_nodes=options.max_nodes,
            start_up_s=options.start_up,
            losses=options.fail_node_at,
            split=options.roles,
        )
        link = None
        if options.roles is not None:
            link = roles.link(options.link, shapes.read(options.model, options.gpus))
        study = studies.Study(
            arrivals=chosen.arrivals,
            workload=chosen.workload,
            slo=slo,
            model=options.model,
            hardware=options.hardware,
            gpus=options.gpus,
            nodes=options.nodes,
            mode=options.mode,
            routing=options.routing.value,
            dispatcher=system.dispatcher,
            attach=system.attach,
            link=link,
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
    for path in (
        options.json,
        options.log,
        options.decisions,
    ):  # a sweep of hours must not end in a mistyped folder
        if path is not None and path != Path("-") and not path.absolute().parent.is_dir():
            raise EngineError(f"{path}: can't be written: {path.absolute().parent} is no folder")
    outcome = study.sweep() if options.sweep else study.run()
    account = system.account
    outcome = msgspec.structs.replace(outcome, result=systems.told(outcome.result, options.levers, account))
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
    if options.decisions is not None:
        systems.write_decisions(options.decisions, account.decisions)
    if options.timeline is not None:
        timelines.write(options.timeline, launches.timeline(outcome.spans))
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
