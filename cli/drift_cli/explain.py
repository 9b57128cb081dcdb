"""`drift explain`: why the last decisions were made, from which figures, and what would move a lever next."""

from __future__ import annotations

import argparse
import asyncio
import datetime
import sys
from typing import Any

import msgspec
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from drift_cli import service_page, sources, status
from drift_cli.looking import LookError, OperatorSeen, ask_operator
from drift_cli.prospects import prospects
from drift_cli.spelling import number, span
from drift_operator.driftservice import DriftService
from drift_operator.status import Status


def configure(parser: argparse.ArgumentParser) -> None:
    sources.configure(parser)
    parser.add_argument(
        "--operator-url",
        metavar="URL",
        help="ask the operator, too, for its pressure and burn rates: http://127.0.0.1:8080 after "
        "`kubectl port-forward -n NAMESPACE service/drift-operator 8080`",
    )


def run(args: argparse.Namespace) -> int:
    try:
        return asyncio.run(_run(args))
    except LookError as error:
        print(f"drift: {error}", file=sys.stderr)
        return status.NOTHING_TO_SEE


async def _run(args: argparse.Namespace) -> int:
    async with sources.opened(args) as look:
        service = _only(await look())
    seen = await _more(args, service)
    if args.json:
        print(msgspec.json.encode(document(service, seen)).decode())
    else:
        status.console().print(explanation(service, seen, datetime.datetime.now(datetime.UTC)))
    return status.exit_code([service])


async def _more(args: argparse.Namespace, service: DriftService) -> OperatorSeen | None:
    """Beyond the status. None: nobody was asked, or nothing is known yet. Raises LookError."""
    namespace, name = service.metadata.namespace, service.metadata.name
    if namespace is None:
        if args.operator_url is not None:
            raise LookError("--operator-url: a run on this machine is asked by itself")
        return None if service.status is None else await asyncio.to_thread(sources.ask_run, name)
    if args.operator_url is None:
        return None
    return await asyncio.to_thread(ask_operator, args.operator_url.rstrip("/"), namespace, name)


def _only(services: list[DriftService]) -> DriftService:
    """Raises LookError where it is not clear which one is meant."""
    if len(services) > 1:
        names = ", ".join(sorted(service.metadata.name for service in services))
        raise LookError(f"which one? There are {names}")
    return services[0]


def document(service: DriftService, seen: OperatorSeen | None) -> dict[str, Any]:
    """`--json`."""
    decisions = (service.status or Status()).decisions or ()
    return {
        **status.document(service),
        "decisions": [each.model_dump(mode="json", by_alias=True, exclude_none=True) for each in decisions],
        "next": {each.lever: each.text for each in prospects(service, seen)},
        "operator": seen,
    }


def explanation(service: DriftService, seen: OperatorSeen | None, now: datetime.datetime) -> RenderableType:
    decisions = (service.status or Status()).decisions
    parts: list[RenderableType] = [
        service_page.headline(service),
        Text(),
        service_page.promise(service),
    ]
    if seen is not None:
        parts += [Text(), *(Text(line) for line in _figures(service, seen))]
    parts += [Text(), Text("decisions, the newest first:")]
    if decisions:
        parts.append(Padding(service_page.time_line(decisions, now), (0, 0, 0, 2), expand=False))
    else:
        parts.append(Text("  none yet: nothing has had to move"))
    parts += [Text(), Text("what would move each lever next:")]
    table = Table.grid(padding=(0, 2))
    for each in prospects(service, seen):
        table.add_row(f"  {each.lever}", each.text)
    parts.append(table)
    return Group(*parts)


def _figures(service: DriftService, seen: OperatorSeen) -> list[str]:
    age = "never" if seen.age_s is None else f"{span(seen.age_s)} ago"
    who = "operator" if service.metadata.namespace is not None else "the run"
    lines = [f"{who}: measured {age}, pressure {number(seen.pressure)}"]
    if seen.unknown:
        lines.append(f"  {seen.unknown}")
    for name, target in sorted(seen.slo.items(), reverse=True):
        rates = ", ".join(f"{number(rate)} over {window}" for window, rate in target.burn_rates.items())
        if rates:
            lines.append(f"  {name.upper()} burns {rates}")
    return lines
