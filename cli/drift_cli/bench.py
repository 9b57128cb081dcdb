"""`drift bench`: load against a server, or two results side by side. The work is in `drift_engine.bench`."""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import signal
import sys
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from drift_cli import tables, workloads
from drift_engine import timelines
from drift_engine.bench import comparing, results, running, tracks
from drift_engine.bench.preparing import Wishes
from drift_engine.bench.records import RequestRecord
from drift_engine.bench.servers import Server

API_KEY_VARIABLE = "DRIFT_API_KEY"
EXIT_FAILED_REQUESTS = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


def configure(parser: argparse.ArgumentParser) -> None:
    """All options of `drift bench`; docs/bench.md explains them."""
    parser.description = "Open-loop, streaming load against an OpenAI-compatible server. See docs/bench.md."
    parser.add_argument("--url", help="the server, for example http://127.0.0.1:8000")
    parser.add_argument(
        "--compare", nargs=2, type=Path, metavar=("A.json", "B.json"), help="print ratios B / A"
    )

    workloads.add_load(parser)

    requests = parser.add_argument_group("requests")
    requests.add_argument("--model", help="name of a served model; by default the first")
    requests.add_argument("--api-key", help=f"by default ${API_KEY_VARIABLE}")
    requests.add_argument("--chat", action="store_true", help="send prompts as chat messages")
    requests.add_argument(
        "--ignore-eos",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="force the asked output length (by default where the server is known to understand it)",
    )
    requests.add_argument(
        "--overlong", choices=("clip", "skip"), default="clip", help="prompts above the context"
    )
    requests.add_argument("--concurrency-limit", type=int, metavar="N", help="at most N requests at a time")
    requests.add_argument("--timeout-s", type=float, default=300.0, metavar="S", help="of one request")
    requests.add_argument("--metrics-url", help="the server's Prometheus page, by default URL/metrics")

    requests.add_argument(
        "--mode", help="how the engine was started, for the result; by default the server says"
    )

    workloads.add_promise(parser)

    output = parser.add_argument_group("output")
    output.add_argument("--json", type=Path, metavar="OUT", help="write the result; - for standard output")
    output.add_argument("--log", type=Path, metavar="TOKENS.jsonl", help="write the token-time log")
    output.add_argument(
        "--timeline",
        type=Path,
        metavar="FILE",
        help="what was seen of each request: .json for Perfetto, .svg",
    )
    output.add_argument("--quiet", action="store_true", help="no table, no progress bar")
    output.add_argument("--allow-failures", action="store_true", help="exit with 0 though requests failed")


def run(options: argparse.Namespace) -> int:
    """The exit code: 0, 1 when requests failed, 2 for options that can't be used, 130 after Ctrl-C.

    Raises EngineError for a server that can't be measured and files that can't be used.
    """
    if options.compare:
        return _compare(*options.compare)
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        load = _load(options)
        server = Server(options.url, options.api_key or os.environ.get(API_KEY_VARIABLE), options.metrics_url)
    except ValueError as error:
        errors.print(f"drift bench: {error}", markup=False)
        return EXIT_USAGE
    if options.timeline is not None:
        timelines.check(options.timeline)
    # One descriptor per request in flight: an open loop against a slow server needs more than the usual 1,024.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with _ProgressBar(enabled=errors.is_terminal and not options.quiet, console=errors) as watcher:
        try:
            outcome = asyncio.run(_drive(server, load, watcher))
        except asyncio.CancelledError:
            return EXIT_INTERRUPTED  # SIGTERM before the first request; Ctrl-C is KeyboardInterrupt
    return _report(options, outcome, errors)


def _report(options: argparse.Namespace, outcome: running.Outcome, errors: Console) -> int:
    result = outcome.result
    to_stdout = options.json == Path("-")
    if to_stdout:
        sys.stdout.buffer.write(results.dump(result))
        sys.stdout.buffer.flush()
    elif options.json:
        results.write(result, options.json)
    if options.timeline is not None:
        timelines.write(options.timeline, tracks.timeline(outcome.records, outcome.start_s, result.slo))
    if not to_stdout and not options.quiet:
        Console().print(tables.of(result))
    for warning in outcome.warnings:
        errors.print(f"warning: {warning}", markup=False)
    if result.interrupted:
        return EXIT_INTERRUPTED
    failed = result.failed > 0 and not options.allow_failures
    return EXIT_FAILED_REQUESTS if failed else 0


async def _drive(server: Server, load: running.Load, watcher: running.Watcher) -> running.Outcome:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # like Ctrl-C
    async with server:
        return await running.run(server, load, watcher)


def _load(options: argparse.Namespace) -> running.Load:
    """Raises ValueError or TraceError."""
    if not options.url:
        raise ValueError("--url is needed, or --compare A.json B.json")
    for name in ("timeout_s", "concurrency_limit"):
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise ValueError(f"--{name.replace('_', '-')}: {value} is not above 0")
    arrivals, workload = workloads.choose(options)
    return running.Load(
        arrivals=arrivals,
        workload=msgspec.structs.replace(
            workload,
            overlong=options.overlong,
            concurrency_limit=options.concurrency_limit,
            chat=options.chat,
        ),
        slo=workloads.promise(options),
        model=options.model,
        wishes=Wishes(
            chat=options.chat, ignore_eos=options.ignore_eos, overlong=options.overlong, seed=options.seed
        ),
        timeout_s=options.timeout_s,
        mode=options.mode,
        log_path=options.log,
        command=workloads.command(sys.argv[1:]),
    )


def _compare(a_path: Path, b_path: Path) -> int:
    comparison = comparing.compare(results.read(a_path), results.read(b_path))
    console = Console()
    console.print(tables.side_by_side(comparison, a_path.name, b_path.name))
    for difference in comparison.differences:
        console.print(f"differs: {difference}", markup=False, soft_wrap=True)
    return 0


class _ProgressBar(running.Watcher):
    """On a terminal only."""

    def __init__(self, *, enabled: bool, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[failed]} failed"),
            TimeElapsedColumn(),
            console=console,
            disable=not enabled,
            transient=True,
        )
        self._task: TaskID | None = None
        self._failed = 0

    def __enter__(self) -> _ProgressBar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def stage(self, text: str) -> None:
        if self._task is None:
            self._task = self._progress.add_task(text, total=None, failed=0)
        self._progress.update(self._task, description=text)

    def started(self, requests: int) -> None:
        assert self._task is not None, "stages come first"
        self._progress.update(self._task, description="requests", total=requests)

    def ended(self, record: RequestRecord) -> None:
        assert self._task is not None, "stages come first"
        self._failed += record.status == "failed"
        self._progress.update(self._task, advance=1, failed=self._failed)
