"""A whole run: prepare, replay, log, judge, compare with the server's counters. `drift bench` is its shell."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections.abc import Sequence
from pathlib import Path

import msgspec

from drift_engine.bench import counters, metrics, preparing
from drift_engine.bench.preparing import Wishes
from drift_engine.bench.records import LogError, LogWriter, RequestRecord
from drift_engine.bench.replaying import Clock, LoopLag, WallClock, replay
from drift_engine.bench.results import Result, ServerCounts, Slo, Workload
from drift_engine.bench.servers import Model, Server, ServerError
from drift_engine.bench.streaming import Sender
from drift_engine.bench.traces import Arrival
from drift_engine.version import drift_version

SETTLE_S = 5.0
"""A server's counters may move a moment after its last answer; they get so long to agree."""
SETTLE_STEP_S = 0.25
LENGTH_TOLERANCE = 0.02
"""Prompts whose total length is further than this from what was asked are worth a warning."""


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What to send where, and how to judge it."""

    arrivals: Sequence[Arrival]
    workload: Workload
    slo: Slo = Slo()
    model: str | None = None
    wishes: Wishes = Wishes()
    timeout_s: float = 300.0
    """Deadline of one request, from the moment it is due."""
    log_path: Path | None = None
    mode: str | None = None
    """How the engine shares its device; None: what the server's metrics say."""
    command: str = "drift bench"


class Watcher:
    """Hears how a run goes; the command line draws a progress bar from it."""

    def stage(self, text: str) -> None:
        """Before the first request: what is being done."""

    def started(self, requests: int) -> None:
        """The clock runs."""

    def ended(self, record: RequestRecord) -> None:
        """One request is over."""


class Outcome(msgspec.Struct, frozen=True):
    result: Result
    warnings: tuple[str, ...]
    records: Sequence[RequestRecord]
    start_s: float
    """By the run's clock: the machine's monotonic one where none was given."""


async def run(server: Server, load: Load, watcher: Watcher, clock: Clock | None = None) -> Outcome:
    """Cancelling it while requests run ends the run early: the result then says `interrupted`.

    Raises ServerError if the server can't be measured at all, LogError if the log can't be opened, and
    asyncio.CancelledError if cancelled before the first request.
    """
    watcher.stage("asking the server")
    model = await server.model(load.model)
    watcher.stage("counting tokens")
    plan, vocabulary = await preparing.plan(server, model, load.arrivals, load.wishes)
    forced = preparing.forces_length(model, load.wishes.ignore_eos)
    if not plan.planned:
        raise ServerError(
            f"{model.id}: all {plan.skipped} requests are longer than its context of {model.max_model_len} tokens"
        )
    watcher.stage("writing prompts")
    chat, seed = load.wishes.chat, load.wishes.seed
    bodies = preparing.BodyWriter(model, vocabulary, chat=chat, ignore_eos=forced, seed=seed)
    before = await server.metrics()
    recorder = _Recorder(load.log_path, watcher)
    # In another clock's time the loop's lag means nothing.
    loop_lag = LoopLag() if clock is None else None
    clock = clock or WallClock()
    sender = Sender(
        server,
        "/v1/chat/completions" if chat else "/v1/completions",
        clock.now_s,
        timeout_s=load.timeout_s,
        concurrency_limit=load.workload.concurrency_limit,
    )
    watcher.started(len(plan.planned))
    sampling = None if loop_lag is None else asyncio.create_task(loop_lag.watch())
    interrupted = False
    try:
        await replay(
            plan.planned,
            bodies.body,
            sender,
            clock=clock,
            forced_length=forced,
            on_start=recorder.begin,
            on_end=recorder.take,
        )
    except asyncio.CancelledError:
        interrupted = True
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()
    finally:
        if sampling is not None:
            sampling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sampling
        recorder.close()
    ended = recorder.records
    counts = await _server_counts(server, before, ended)
    result = Result(
        kind="bench",
        mode=load.mode or (before and counters.label(before, "mode")) or model.mode or "unknown",
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command=load.command,
        drift_version=drift_version(),
        url=server.url,
        model=model.id,
        workload=load.workload,
        interrupted=interrupted,
        skipped=plan.skipped,
        generator=metrics.generator_share(ended, loop_lag.samples_s if loop_lag else []),
        server_counts=counts,
        **metrics.summarize(ended, load.slo),
    )
    told = (*recorder.warnings, *warnings(result, model, vocabulary.measured))
    return Outcome(result=result, warnings=told, records=ended, start_s=recorder.start_s)


class _Recorder:
    """Keeps the records and writes the log. A log that can't be written is a warning; the run goes on."""

    def __init__(self, path: Path | None, watcher: Watcher) -> None:
        self._watcher = watcher
        self._writer = LogWriter(path) if path else None
        self.records: list[RequestRecord] = []
        self.warnings: list[str] = []
        self.start_s = 0.0

    def begin(self, start_s: float) -> None:
        self.start_s = start_s

    def take(self, record: RequestRecord) -> None:
        self.records.append(record)
        self._watcher.ended(record)
        if self._writer is not None:
            try:
                self._writer.append(record)
            except LogError as error:
                self.warnings.append(f"the log is incomplete: {error}")
                self.close()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


async def _server_counts(
    server: Server, before: str | None, records: Sequence[RequestRecord]
) -> ServerCounts | None:
    if before is None:
        return None
    earlier = counters.parse(before)
    deadline_s = asyncio.get_running_loop().time() + SETTLE_S
    while True:
        after = await server.metrics()
        counts = None if after is None else counters.against_log(earlier, counters.parse(after), records)
        if counts is None or counts.agree or asyncio.get_running_loop().time() >= deadline_s:
            return counts
        await asyncio.sleep(SETTLE_STEP_S)


def warnings(result: Result, model: Model, measured: bool) -> list[str]:
    """What a reader of the numbers has to know, one line each."""
    told = []
    if result.interrupted:
        told.append("interrupted: the result covers the requests that were sent until then")
    if result.failed:
        reasons = ", ".join(f"{count} x {reason}" for reason, count in result.failures.items())
        told.append(f"{result.failed} of {result.requests} requests failed: {reasons}")
    if result.skipped:
        told.append(f"{result.skipped} requests skipped: longer than {model.max_model_len} tokens")
    if result.clipped_prompts or result.clipped_outputs:
        told.append(
            f"cut to fit {model.max_model_len} tokens: {result.clipped_prompts} prompts, "
            f"{result.clipped_outputs} outputs"
        )
    if result.short_outputs:
        told.append(f"{result.short_outputs} answers ended before the length they were forced to")
    asked, real = result.asked_prompt_tokens, result.prompt_tokens
    if not result.failed and abs(real - asked) > LENGTH_TOLERANCE * asked:
        source = "" if measured else " (the server has no /tokenize to measure with)"
        told.append(f"prompts have {real} tokens, asked were {asked}{source}")
    generator = result.generator
    if generator is not None and not generator.reliable:
        told.append(
            f"the load generator lagged (P99 above {metrics.RELIABLE_LAG_MS:g} ms): "
            "the latencies are not the server's alone"
        )
    counts = result.server_counts
    if counts is not None and not counts.agree:
        pairs = {
            "requests": counts.requests,
            "prompt tokens": counts.prompt_tokens,
            "generation tokens": counts.generation_tokens,
        }
        told.append(
            "the server's counters disagree with the log: "
            + ", ".join(f"{name} {pair.server} / {pair.client}" for name, pair in pairs.items())
        )
    return told
