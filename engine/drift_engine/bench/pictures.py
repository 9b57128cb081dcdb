"""What `drift plot` shows of which files, as data: rows of panels, their heading, and what to know of them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from drift_engine.bench import panels, series
from drift_engine.bench.panels import Panel
from drift_engine.bench.series import Log, PlotError, Run

Kind = Literal["auto", "goodput", "attainment", "latency", "cdf"]
KINDS: tuple[Kind, ...] = ("auto", "goodput", "attainment", "latency", "cdf")

LINE_PANELS = {"goodput": panels.goodput, "attainment": panels.attainment}


class Picture(msgspec.Struct, frozen=True):
    title: str
    subtitle: str
    rows: tuple[tuple[Panel, ...], ...]
    warnings: tuple[str, ...]
    """What a reader of the picture has to know; told beside it."""


def picture(
    runs: Sequence[Run],
    logs: Sequence[Log] = (),
    kind: Kind = "auto",
    names: Sequence[str] = (),
    title: str | None = None,
) -> Picture:
    """`names`: one per file, where files of one name make one line, or one per line. Raises PlotError."""
    _check(runs, logs, kind)
    wanted = _wanted(runs, logs) if kind == "auto" else (kind,)
    if runs:
        runs = _named(runs, names, per_line=not {"latency", "cdf"} & set(wanted))
        logs = _paired(runs, logs)
    elif names:
        logs = _renamed(logs, names)
    rows: list[tuple[Panel, ...]] = []
    warnings = _doubts(runs)
    if lines := tuple(LINE_PANELS[name](runs) for name in wanted if name in LINE_PANELS):
        rows.append(lines)
        warnings += _mixed(runs)
    if "latency" in wanted:
        rows.append(panels.latency(runs))
    if "cdf" in wanted:
        rows.append(panels.distributions(logs))
        warnings += _left_out(logs)
    slos = [run.result.slo for run in runs] or [log.slo for log in logs]
    promises = series.distinct(map(series.promise, slos))
    return Picture(
        title=_title(runs) if title is None else title,
        subtitle=f"promise: {promises[0]}" if runs and len(promises) == 1 and promises[0] else "",
        rows=tuple(rows),
        warnings=tuple(warnings),
    )


def _is_sweep(runs: Sequence[Run]) -> bool:
    """Judged runs of which some differ in nothing but the rate."""
    if any(run.result.rate_rps is None or run.result.goodput_rps is None for run in runs):
        return False
    return any(
        len(line.path) > 1 for line in series.lines(runs, lambda result: result.goodput_rps, "goodput")
    )


def _check(runs: Sequence[Run], logs: Sequence[Log], kind: Kind) -> None:
    if kind == "cdf" and not logs:
        raise PlotError("cdf: needs the token-time log of a run: --log LOG.jsonl")
    if kind in ("goodput", "attainment", "latency"):
        if not runs:
            raise PlotError(f"{kind}: needs result files; --log is for cdf")
        if logs:
            raise PlotError(f"{kind}: is drawn from results alone; --log is for cdf and auto")


def _wanted(runs: Sequence[Run], logs: Sequence[Log]) -> tuple[str, ...]:
    """All that the files can show."""
    results = () if not runs else ("goodput", "attainment") if _is_sweep(runs) else ("latency",)
    return (*results, *(("cdf",) if logs else ()))


def _named(runs: Sequence[Run], names: Sequence[str], *, per_line: bool) -> Sequence[Run]:
    if not names:
        return runs
    if len(names) == len(runs):
        return [msgspec.structs.replace(run, label=name) for run, name in zip(runs, names, strict=True)]
    if not per_line:
        raise PlotError(f"--label: {len(names)} names for {len(runs)} runs")
    groups = series.grouped(runs)
    if len(groups) != len(names):
        found = "; ".join(label for label, _ in groups)
        raise PlotError(f"--label: {len(names)} names for {len(runs)} runs in {len(groups)} lines ({found})")
    return [
        msgspec.structs.replace(run, label=name)
        for (_, group), name in zip(groups, names, strict=True)
        for run in group
    ]


def _renamed(logs: Sequence[Log], names: Sequence[str]) -> Sequence[Log]:
    if len(names) != len(logs):
        raise PlotError(f"--label: {len(names)} names for {len(logs)} logs")
    return [msgspec.structs.replace(log, label=name) for log, name in zip(logs, names, strict=True)]


def _paired(runs: Sequence[Run], logs: Sequence[Log]) -> Sequence[Log]:
    """The first log belongs to the first run, and so on: a log says neither its mode nor its bounds."""
    if logs and len(logs) != len(runs):
        raise PlotError(f"--log: {len(logs)} logs for {len(runs)} runs; give one per run, or logs alone")
    return [
        msgspec.structs.replace(log, label=label, slo=run.result.slo)
        for log, run, label in zip(logs, runs, series.labels(runs), strict=False)
    ]


def _title(runs: Sequence[Run]) -> str:
    """What all runs share; nothing known for logs alone."""
    columns = zip(*(series.traits(run.result)[1:4] for run in runs), strict=True)
    return ", ".join(values[0] for values in columns if len(set(values)) == 1)


def _doubts(runs: Sequence[Run]) -> list[str]:
    told = [f"{run.source}: was interrupted" for run in runs if run.result.interrupted]
    told += [
        f"{run.source}: the load generator lagged; its latencies are not the server's alone"
        for run in runs
        if run.result.generator is not None and not run.result.generator.reliable
    ]
    return told


def _mixed(runs: Sequence[Run]) -> list[str]:
    """Goodput by one promise says nothing about goodput by another."""
    promises = series.distinct(series.promise(run.result.slo) for run in runs)
    if len(promises) < 2:
        return []
    return [
        f"the runs were judged by {len(promises)} promises, and only lines of one compare: {'; '.join(promises)}"
    ]


def _left_out(logs: Sequence[Log]) -> list[str]:
    failed = [(log, sum(record.status == "failed" for record in log.records)) for log in logs]
    return [
        f"{log.source}: {count} of {len(log.records)} requests failed and are not in its curves"
        for log, count in failed
        if count
    ]
