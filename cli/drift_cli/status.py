"""`drift status`: is the promise kept, by which nodes, and what is wrong? The exit status tells scripts."""

from __future__ import annotations

import argparse
import asyncio
import datetime
import sys
from typing import Any

import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from drift_cli import service_page, sources, verdicts
from drift_cli.looking import LookError
from drift_cli.sources import Look
from drift_operator.driftservice import DriftService

KEPT, NOT_KEPT, NOTHING_TO_SEE = 0, 1, 2
"""Exit codes."""

INTERVAL_S = 2.0
"""An operator writes a busy service's figures every 5 s."""

WIDTH = 160
"""Of a page that no terminal shows."""


def configure(parser: argparse.ArgumentParser) -> None:
    sources.configure(parser)
    parser.add_argument(
        "-A", "--all-namespaces", action="store_true", help="a table of all that the cluster has"
    )
    parser.add_argument("-w", "--watch", action="store_true", help="go on showing it, until Ctrl-C")


def run(args: argparse.Namespace) -> int:
    if args.all_namespaces and (args.service or args.namespace or args.local):
        print(
            "drift status: --all-namespaces goes with neither SERVICE, --namespace nor --local",
            file=sys.stderr,
        )
        return NOTHING_TO_SEE
    if args.watch and args.json:
        print("drift status: --watch and --json exclude each other", file=sys.stderr)
        return NOTHING_TO_SEE
    if args.watch and not console().is_terminal:
        print("drift status: --watch needs a terminal", file=sys.stderr)
        return NOTHING_TO_SEE
    try:
        return asyncio.run(_run(args))
    except LookError as error:
        print(f"drift: {error}", file=sys.stderr)
        return NOTHING_TO_SEE


def exit_code(services: list[DriftService]) -> int:
    return KEPT if all(verdicts.judge(each).good for each in services) else NOT_KEPT


def console() -> Console:
    """As wide as the terminal; wide enough where there is none."""
    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=WIDTH)


def document(service: DriftService) -> dict[str, Any]:
    """`--json` of one service."""
    verdict = verdicts.judge(service)
    body = service.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {
        "namespace": service.metadata.namespace,
        "name": service.metadata.name,
        "kept": verdict.good,
        "verdict": verdict.name,
        "concerns": [
            {"fault": each.fault, "type": each.condition.type, "reason": each.condition.reason}
            for each in verdicts.concerns(service)
        ],
        "slo": body["spec"]["slo"],
        "status": body.get("status"),
    }


async def _run(args: argparse.Namespace) -> int:
    async with sources.opened(args) as look:
        if args.watch:
            return await _watch(look, args)
        services = await look()
        if args.json:
            found = [document(each) for each in services]
            print(msgspec.json.encode(found[0] if args.service else {"services": found}).decode())
        else:
            console().print(_shown(services, args))
        return exit_code(services)


def _shown(services: list[DriftService], args: argparse.Namespace) -> RenderableType:
    """A run on this machine is one service, also where nobody names it."""
    if args.service is None and services[0].metadata.namespace is not None:
        return service_page.table(services)
    return service_page.page(services[0], datetime.datetime.now(datetime.UTC))


async def _watch(look: Look, args: argparse.Namespace) -> int:
    """Until Ctrl-C. What can't be seen for a while is said under the last page."""
    services = await look()
    with Live(_shown(services, args), console=console(), auto_refresh=False) as live:
        try:
            while True:
                await asyncio.sleep(INTERVAL_S)
                problem = ""
                try:
                    services = await look()
                except LookError as error:
                    problem = str(error)
                shown = _shown(services, args)
                live.update(Group(shown, Text(problem, style="red")) if problem else shown, refresh=True)
        except asyncio.CancelledError:  # Ctrl-C
            return exit_code(services)
