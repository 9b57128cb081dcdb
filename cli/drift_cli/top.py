"""`drift top`: nodes, splits, hit rates, queues and promises, live in the terminal."""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Sequence

import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from drift_cli import runs
from drift_cli.looking import LookError, NodeSeen, Seen, look
from drift_engine import wire
from drift_engine.options import TOKEN_VARIABLE
from drift_router.nodes.breaker import Circuit
from drift_router.nodes.statuses import NodeStatus
from drift_router.pictures import RouterReport

INTERVAL_S = 1.0
"""Some reports of every node; faster than this nobody reads."""

WIDTH = 160
"""Of a picture that no terminal shows."""

UNKNOWN = "-"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--url",
        metavar="URL",
        help="a router's admin port or a node's control port (default: of the newest `drift up` on this machine)",
    )
    parser.add_argument(
        "--once", action="store_true", help="one picture (default where there is no terminal)"
    )
    parser.add_argument("--json", action="store_true", help="one picture, as data")
    parser.epilog = f"The control token for --url is taken from the environment variable {TOKEN_VARIABLE}."


def run(args: argparse.Namespace) -> int:
    """Raises LookError where there is nothing to see."""
    title, url, token = _whom(args.url)
    if args.json:
        print(msgspec.json.encode(look(url, token)).decode())
        return 0
    console = Console(highlight=False)
    if args.once or not console.is_terminal:
        console = console if console.is_terminal else Console(highlight=False, width=WIDTH)
        console.print(picture(title, look(url, token)))
        return 0
    with contextlib.suppress(KeyboardInterrupt):
        _live(console, title, url, token)
    return 0


def _whom(url: str | None) -> tuple[str, str, str]:
    """What it is called, its URL and its token."""
    if url is not None:
        return url, url.rstrip("/"), os.environ.get(TOKEN_VARIABLE, "")
    found = runs.newest(os.environ)
    if found is None:
        raise LookError("no `drift up` of yours runs on this machine; give the address to look at with --url")
    return found.name, found.admin_url, found.token


def _live(console: Console, title: str, url: str, token: str) -> None:
    """Until Ctrl-C. What can't be seen for a while is said under the last picture."""
    seen = look(url, token)
    with Live(picture(title, seen), console=console, screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(INTERVAL_S)
            try:
                seen, problem = look(url, token), ""
            except LookError as error:
                problem = str(error)
            shown = picture(title, seen)
            live.update(Group(shown, Text(problem, style="red")) if problem else shown, refresh=True)


def picture(title: str, seen: Seen) -> RenderableType:
    if isinstance(seen, NodeSeen):
        return Group(Text(title, style="bold"), _node_table([_own(seen.node)]))
    lines = [Text(title, style="bold"), *(Text(line) for line in router_lines(seen.router))]
    return Group(*lines, _node_table([_routed(node) for node in seen.nodes]))


def router_lines(router: RouterReport) -> list[str]:
    draining = ", draining" if router.draining else ""
    promises = ", ".join(f"{name} {share:.1%}" for name, share in sorted(router.attainment.items()))
    return [
        f"{router.eligible_nodes} of {router.nodes} nodes take requests{draining}; "
        f"{router.in_flight} in flight, {router.queue_depth} queued",
        f"last {router.window_s:.0f} s: {router.requests_per_s:.1f} requests/s, "
        f"{router.rejected_per_s:.1f} refused/s, {router.prompt_tokens_per_s:.0f} prompt tokens/s, "
        f"hit rate {_share(router.confirmed_hit_ratio)} (predicted {_share(router.predicted_hit_ratio)})",
        f"TTFT P50 {_ms(router.ttft_p50_s)} P99 {_ms(router.ttft_p99_s)}, "
        f"TBT P50 {_ms(router.tbt_p50_s)} P99 {_ms(router.tbt_p99_s)}; promise kept: {promises or UNKNOWN}",
    ]


_WORDS = ("node", "state", "index", "mode")
_NUMBERS = (
    "split",
    "in\nflight",
    "queued\ntokens",
    "KV\nheld",
    "hit\nrate",
    "prefill\ntok/s",
    "TBT P99\nms",
)


def _node_table(rows: Sequence[dict[str, str]]) -> Table:
    """With the columns that any row has."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))  # 80 columns suffice while all is well
    columns = [name for name in (*_WORDS, *_NUMBERS) if any(name in row for row in rows)]
    for name in columns:
        table.add_column(name, justify="left" if name in _WORDS else "right", vertical="bottom")
    for row in rows:
        table.add_row(*(row.get(name, UNKNOWN) for name in columns))
    return table


def _routed(node: NodeStatus) -> dict[str, str]:
    """What the router knows of a node; its report where there is one."""
    state = "removed" if node.removed else "draining" if node.draining else str(node.health)
    circuit = "" if node.circuit is Circuit.CLOSED else f", circuit {node.circuit}"
    return {
        **(_reported(node.report) if node.report is not None else {}),
        "node": node.name,
        "state": state + circuit,
        "index": str(node.index),
        "in\nflight": str(node.in_flight),
        "queued\ntokens": str(node.queued_tokens),
    }


def _own(report: wire.Report) -> dict[str, str]:
    state = "draining" if report.draining else "ready" if report.ready else "loading"
    return {"node": report.node, "state": state, **_reported(report)}


def _reported(report: wire.Report) -> dict[str, str]:
    split, prompt_tokens = report.split, report.prompt_tokens_total
    return {
        "mode": str(report.mode),
        "split": f"{split.decode_sms}/{split.prefill_sms}" if split is not None else UNKNOWN,
        "in\nflight": str(report.in_flight),
        "queued\ntokens": str(report.queued_tokens),
        "KV\nheld": _share(report.kv_usage),
        "hit\nrate": _share(report.cached_tokens_total / prompt_tokens if prompt_tokens else None),
        "prefill\ntok/s": f"{report.prefill_tokens_per_s:.0f}" if report.prefill_tokens_per_s else UNKNOWN,
        "TBT P99\nms": f"{report.tbt_p99_ms:.0f}" if report.tbt_p99_ms else UNKNOWN,
    }


def _share(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.0%}"


def _ms(value_s: float | None) -> str:
    return UNKNOWN if value_s is None else f"{1000 * value_s:.0f} ms"
