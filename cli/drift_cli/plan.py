"""`drift plan`: how many nodes a workload needs under a promise, by simulation."""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from drift_cli import capacity, plan_page, simulate, workloads
from drift_cli.capacity import Choice, Outlook, Plan
from drift_cli.plan_page import Course
from drift_cli.steering import Levers
from drift_cli.systems import MOST_NODES, Loss, System
from drift_cli.workloads import Chosen
from drift_engine import wire
from drift_engine.bench import metrics
from drift_engine.bench.results import Slo
from drift_engine.errors import EngineError
from drift_engine.simulation import studies
from drift_engine.simulation.studies import Outcome, Study
from drift_engine.version import drift_version
from drift_router.snapshots import Policy

EXIT_USAGE = 2
LOSS_SHARE = 1 / 3
"""Of the time over which requests arrive, until the node dies: caches are full, and most of the run is to come."""


def configure(parser: argparse.ArgumentParser) -> None:
    """All options; docs/simulate.md explains them."""
    parser.description = "How many nodes a workload needs under a promise. See docs/simulate.md."
    nodes = parser.add_argument_group("nodes")
    nodes.add_argument("--model", default="llama-8b", metavar="SHAPE", help=studies.MODEL_HELP)
    nodes.add_argument("--hardware", default="h200", metavar="H", help=studies.HARDWARE_HELP)
    nodes.add_argument("--gpus", type=int, default=1, metavar="G", help="of one node (tensor parallelism)")
    nodes.add_argument("--max-nodes", type=int, default=64, metavar="N", help="not more than these")
    nodes.add_argument(
        "--modes", type=_modes, default=(wire.Mode.AUTO,), metavar="A,B", help="to compare; auto by default"
    )
    nodes.add_argument(
        "--policies",
        type=_policies,
        default=(Policy.CACHE_AWARE,),
        metavar="A,B",
        help="of the router, to compare; cache-aware by default",
    )
    nodes.add_argument(
        "--levers", type=Levers, default=Levers.OFF, choices=[one for one in Levers if one is not Levers.ALL]
    )
    nodes.add_argument("--no-loss", action="store_true", help="don't ask what happens when a node dies")
    nodes.add_argument(
        "--max-running", type=int, default=256, metavar="R", help="requests that decode at once"
    )
    workloads.add_load(parser)
    workloads.add_promise(parser)
    output = parser.add_argument_group("output")
    output.add_argument("--html", type=Path, metavar="OUT", help="write a page with pictures")
    output.add_argument("--json", type=Path, metavar="OUT", help="write the plan; - for standard output")
    output.add_argument("--quiet", action="store_true", help="no table, no progress")


def run(options: argparse.Namespace) -> int:
    """The exit code: 0, 1 where no number of nodes keeps the promise, 2 for options that can't be used. Raises
    EngineError."""
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        asked = Asking(options)
    except ValueError as error:
        errors.print(f"drift plan: {error}", markup=False)
        return EXIT_USAGE
    simulate.check_folders(options.json, options.html)
    found = asked.plan(errors.print if not options.quiet else None)
    if options.json == Path("-"):
        sys.stdout.buffer.write(capacity.dump(found))
        sys.stdout.buffer.flush()
    else:
        if options.json is not None:
            _write(options.json, capacity.dump(found))
        if not options.quiet:
            Console().print(table(found))
            said = Console(soft_wrap=True, highlight=False)
            for sentence in (capacity.sentence(found), capacity.caution(found)):
                if sentence is not None:
                    said.print(sentence, markup=False)
    if options.html is not None:
        _write(options.html, plan_page.page(found, asked.courses(found)).encode())
    return 0 if found.best is not None else 1


class Asking:
    """One question. Raises ValueError that names the option."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._chosen: Chosen = workloads.choose(options)
        self._slo: Slo = workloads.promise(options)
        if not self._slo.bounded:
            raise ValueError("a plan needs a promise: --slo-ttft-ms, --slo-tbt-ms or both")
        if not 1 <= options.max_nodes <= MOST_NODES:
            raise ValueError(f"--max-nodes: {options.max_nodes} is not between 1 and {MOST_NODES}")
        window_s = studies.window_s(self._chosen.arrivals)
        self._rate_rps = len(self._chosen.arrivals) / window_s if window_s else None
        self._loss_at_s = None if options.no_loss else LOSS_SHARE * window_s
        self._study(
            options.modes[0], options.policies[0], 1, None
        )  # what can't be is said before the first run

    def plan(self, say: simulate.Saying | None) -> Plan:
        options = self._options
        choices = []
        for mode in options.modes:
            for policy in options.policies:
                choice = self._choice(mode, policy)
                choices.append(choice)
                if say is not None:
                    said = [choice.whole.nodes, *([choice.bereft.nodes] if choice.bereft is not None else [])]
                    say(f"{choice.name}: {' and '.join(map(_count, said))} nodes")
        return Plan(
            date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            command=workloads.command(sys.argv[1:]),
            drift_version=drift_version(),
            model=options.model,
            hardware=options.hardware if options.gpus == 1 else f"{options.gpus} x {options.hardware}",
            gpus=options.gpus,
            workload=self._chosen.workload,
            requests=len(self._chosen.arrivals),
            rate_rps=self._rate_rps,
            slo=self._slo,
            levers=options.levers.value,
            max_nodes=options.max_nodes,
            loss_at_s=self._loss_at_s,
            choices=tuple(choices),
        )

    def courses(self, plan: Plan) -> Sequence[Course]:
        """Of the best way, with as many nodes as it needs."""
        best = plan.best
        if best is None or best.needed is None:
            return ()
        mode, policy = wire.Mode(best.mode), Policy(best.policy)
        found = [self._course("no node lost", self._study(mode, policy, best.needed, None).run())]
        if self._loss_at_s is not None:
            lost = self._study(mode, policy, best.needed, self._loss_at_s).run()
            found.append(self._course("one dies", lost))
        return found

    def _course(self, name: str, outcome: Outcome) -> Course:
        return plan_page.course(
            name, outcome.records, [metrics.both_met(record, self._slo) for record in outcome.records]
        )

    def _choice(self, mode: wire.Mode, policy: Policy) -> Choice:
        whole = self._outlook(mode, policy, None, 1)
        bereft = None
        if self._loss_at_s is not None:
            bereft = self._outlook(mode, policy, self._loss_at_s, whole.nodes or self._options.max_nodes)
        return Choice(mode=mode.value, policy=policy.value, whole=whole, bereft=bereft)

    def _outlook(self, mode: wire.Mode, policy: Policy, loss_at_s: float | None, first: int) -> Outlook:
        def keeps(nodes: int) -> tuple[float, bool]:
            return self._study(mode, policy, nodes, loss_at_s).keeps()

        nodes, tried = capacity.least(keeps, self._options.max_nodes, first)
        result = None if nodes is None else self._study(mode, policy, nodes, loss_at_s).run().result
        return capacity.outlook(nodes, tried, result)

    def _study(self, mode: wire.Mode, policy: Policy, nodes: int, loss_at_s: float | None) -> Study:
        options = self._options
        system = System(
            slo=self._slo,
            policy=policy,
            seed=options.seed,
            mode=mode,
            moved=options.levers,
            nodes=nodes,
            losses=() if loss_at_s is None else (Loss(loss_at_s),),
        )
        return Study(
            arrivals=self._chosen.arrivals,
            workload=self._chosen.workload,
            slo=self._slo,
            model=options.model,
            hardware=options.hardware,
            gpus=options.gpus,
            nodes=nodes,
            mode=mode,
            routing=policy.value,
            dispatcher=system.dispatcher,
            attach=system.attach,
            max_running=options.max_running,
        )


def table(plan: Plan) -> Table:
    shown = Table(
        "",
        *("nodes", "kept", "TTFT P99", "worst gap P99", "cached", "GPU-s per good"),
        title=f"{plan.model} on nodes of {plan.hardware}",
    )
    for choice in plan.choices:
        shown.add_row(choice.name, *plan_page.cells_of(choice.whole))
        if choice.bereft is not None:
            shown.add_row("  one dies", *plan_page.cells_of(choice.bereft))
    return shown


def _count(nodes: int | None) -> str:
    return "more" if nodes is None else str(nodes)


def _modes(text: str) -> tuple[wire.Mode, ...]:
    return tuple(wire.Mode(name) for name in text.split(","))


def _policies(text: str) -> tuple[Policy, ...]:
    return tuple(Policy(name) for name in text.split(","))


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise EngineError(f"{path}: can't be written: {error.strerror}") from error
