"""From results and token-time logs to labelled series of numbers. Pure; `panels` comes next.

Runs that did the same work in the same way and were judged by the same promise make one line, whatever their rates
and seeds; its label is the mode and whatever else tells it from the other lines.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

import msgspec

from drift_engine.bench import metrics
from drift_engine.bench.records import RequestRecord
from drift_engine.bench.results import Result, Slo
from drift_engine.errors import EngineError

SAME_RATE = 0.005
"""Rates closer than this share are one rate: steps of a sweep differ by more, repetitions by less."""

CURVE_POINTS = 400
"""Of a distribution, and as many again in its last hundredth: more can't be told apart in a picture."""

Item = TypeVar("Item")


class PlotError(EngineError):
    """What was asked for can't be drawn from these files."""


class Run(msgspec.Struct, frozen=True):
    """One measured or simulated point."""

    source: str
    """The file, as errors and warnings name it."""
    result: Result
    label: str | None = None
    """As the user names it; runs of one label are one line."""


class Log(msgspec.Struct, frozen=True):
    """What happened to the requests of one run."""

    source: str
    records: tuple[RequestRecord, ...]
    label: str
    slo: Slo = Slo()


class Point(msgspec.Struct, frozen=True):
    x: float
    y: float
    attained: bool = True
    """The run kept its promise for as many requests as it promised to."""


class Line(msgspec.Struct, frozen=True):
    """A quantity of runs over their offered rate."""

    label: str
    points: tuple[Point, ...]
    """One per run, by rising rate."""
    path: tuple[tuple[float, float], ...]
    """Through the means of runs of one rate."""


class Crossing(msgspec.Struct, frozen=True):
    """Where a line first falls below a target."""

    target: float
    rate_rps: float | None
    """Between two measured rates, by linear interpolation; None where nothing was measured on one of the sides."""
    told: str


class Bar(msgspec.Struct, frozen=True):
    """One run's percentiles, None where there was nothing to measure."""

    label: str
    values: tuple[float | None, ...]


class Curve(msgspec.Struct, frozen=True):
    """Cumulative shares of ascending values, thinned."""

    label: str
    points: tuple[tuple[float, float], ...]
    """(value, share of values at or below it)"""


def lines(runs: Sequence[Run], value: Callable[[Result], float | None], name: str) -> list[Line]:
    """`value` over the offered rate, a line for each kind of run, in order of appearance. Raises PlotError."""
    made = []
    for label, group in grouped(runs):
        points = []
        for run in group:
            rate_rps, y = run.result.rate_rps, value(run.result)
            if rate_rps is None:
                raise PlotError(f"{run.source}: a run of {run.result.requests} requests has no offered rate")
            if y is None:
                raise PlotError(
                    f"{run.source}: has no {name}: it was judged by no bound (--slo-ttft-ms, --slo-tbt-ms)"
                )
            points.append(Point(x=rate_rps, y=y, attained=bool(run.result.attained)))
        points.sort(key=lambda point: (point.x, point.y))
        made.append(Line(label=label, points=tuple(points), path=tuple(_means(points))))
    return made


def crossing(line: Line, target: float) -> Crossing:
    """Where the line first falls from the target or above to below it; `target` in per cent."""
    for (x, y), (next_x, next_y) in itertools.pairwise(line.path):
        if y >= target > next_y:
            rate_rps = x + (next_x - x) * (y - target) / (y - next_y)
            return Crossing(target, rate_rps, f"{target:.4g} % up to {rate_rps:.3g}/s")
    if line.path[0][1] < target:
        return Crossing(target, None, f"below {target:.4g} %")
    return Crossing(target, None, f"{target:.4g} % throughout")


def bars(runs: Sequence[Run], values: Callable[[Result], Iterable[float | None]]) -> list[Bar]:
    """Some percentiles of each run."""
    return [
        Bar(label=label, values=tuple(values(run.result)))
        for label, run in zip(labels(runs), runs, strict=True)
    ]


def curves(logs: Sequence[Log], values: Callable[[RequestRecord], Iterable[float]]) -> list[Curve]:
    """The distribution over each log's answered requests."""
    made = []
    for log in logs:
        answered = (record for record in log.records if record.status == "ok")
        ordered = sorted(itertools.chain.from_iterable(map(values, answered)))
        made.append(Curve(label=log.label, points=tuple(_cumulative(ordered))))
    return made


def ttfts_ms(record: RequestRecord) -> Iterable[float]:
    value = metrics.ttft_ms(record)
    return [] if value is None else [value]


def grouped(runs: Sequence[Run]) -> list[tuple[str, list[Run]]]:
    """Runs of one line together, with its label."""
    groups: dict[Hashable, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.label or traits(run.result), []).append(run)
    heads = [group[0] for group in groups.values()]
    told = _telling_apart([traits(run.result) for run in heads])
    return [(run.label or name, group) for run, name, group in zip(heads, told, groups.values(), strict=True)]


def labels(runs: Sequence[Run]) -> list[str]:
    """One for each run; the rate and then the file's name help where nothing else tells two apart."""
    told = _telling_apart([(*traits(run.result), _rate(run.result)) for run in runs])
    names = [run.label or name for run, name in zip(runs, told, strict=True)]
    rates = [_rate(run.result) if run.label else "" for run in runs]
    files = [run.source.rpartition("/")[2] for run in runs]
    for details in (rates, files):
        names = [
            f"{name}, {detail}" if detail and names.count(name) > 1 else name
            for name, detail in zip(names, details, strict=True)
        ]
    return names


def traits(result: Result) -> tuple[str, ...]:
    """What two runs of one line share, the mode first."""
    load = result.workload
    work = [load.trace or load.format]
    if load.format == "synthetic" and result.requests:
        asked = (result.asked_prompt_tokens, result.asked_output_tokens)
        work.append("{:.0f} in, {:.0f} out".format(*(tokens / result.requests for tokens in asked)))
    work += [f"{load.length_scale:g} x lengths"] if load.length_scale != 1 else []
    work += [f"{load.arrivals} arrivals"] if load.arrivals == "spread" else []
    work += [f"overlong {load.overlong}"] if load.overlong != "clip" else []
    work += [f"at most {load.concurrency_limit} at once"] if load.concurrency_limit else []
    work += ["chat"] if load.chat else []
    kind = "measured" if result.kind == "bench" else "simulated"
    return (result.mode, kind, result.model, ", ".join(work), *_bounds(result.slo))


def promise(slo: Slo) -> str:
    """In words; empty without a bound."""
    ttft, tbt, target = _bounds(slo)
    return f"{' and '.join(filter(None, (ttft, tbt)))} {target}" if slo.bounded else ""


def _bounds(slo: Slo) -> tuple[str, str, str]:
    rise = f" + {slo.ttft_per_token_ms:g} ms per uncached token" if slo.ttft_per_token_ms else ""
    return (
        "" if slo.ttft_ms is None else f"TTFT ≤ {slo.ttft_ms:g} ms{rise}",
        "" if slo.tbt_ms is None else f"TBT ≤ {slo.tbt_ms:g} ms",
        f"for {slo.attainment_target * 100:.4g} % of requests" if slo.bounded else "",
    )


def distinct(values: Iterable[Item]) -> list[Item]:
    """In order of appearance."""
    return list(dict.fromkeys(values))


def _telling_apart(parts: Sequence[tuple[str, ...]]) -> list[str]:
    """The first part of each, and those further parts that are not the same in all."""
    varied = [column == 0 or len(set(values)) > 1 for column, values in enumerate(zip(*parts, strict=True))]
    return [", ".join(part for part in itertools.compress(row, varied) if part) for row in parts]


def _rate(result: Result) -> str:
    return "" if result.rate_rps is None else f"{result.rate_rps:.3g}/s"


def _means(points: Sequence[Point]) -> Iterable[tuple[float, float]]:
    """Of ascending points; those of one rate become one."""
    group: list[Point] = []
    for point in (*points, None):
        if group and (point is None or point.x > group[0].x * (1 + SAME_RATE)):
            yield statistics.fmean(p.x for p in group), statistics.fmean(p.y for p in group)
            group = []
        if point is not None:
            group.append(point)


def _cumulative(ordered: Sequence[float]) -> Iterable[tuple[float, float]]:
    count = len(ordered)
    tail = count - count // 100
    ranks = {*range(0, count, max(1, count // CURVE_POINTS)), count - 1} if count else set()
    ranks.update(range(tail, count, max(1, (count - tail) // CURVE_POINTS)))
    return ((ordered[rank], (rank + 1) / count) for rank in sorted(ranks))
