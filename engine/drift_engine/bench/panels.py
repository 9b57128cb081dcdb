"""The panels of a picture: what each kind of plot shows, with its axes, series, bounds and words. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from drift_engine.bench import metrics, series
from drift_engine.bench.results import Percentiles, Result, Slo, TbtPercentiles
from drift_engine.bench.series import Bar, Crossing, Curve, Line, Log, PlotError, Run

MOST_BARS = 8
"""Runs side by side: with more a group of bars is wider than its axis is readable."""

LONG_TAIL = 10.0
"""A worst value this many medians away squeezes everything else on a linear axis."""

RATE_LABEL = "offered rate (requests/s)"


class Bound(msgspec.Struct, frozen=True):
    value: float
    label: str


class LinePanel(msgspec.Struct, frozen=True, kw_only=True):
    title: str
    y_label: str
    lines: tuple[Line, ...]
    targets: tuple[Bound, ...] = ()
    crossings: tuple[Crossing, ...] = ()
    """One per line where there are targets."""
    ideal: str | None = None
    """What the diagonal means, where both axes are rates."""


class BarPanel(msgspec.Struct, frozen=True, kw_only=True):
    title: str
    y_label: str
    groups: tuple[str, ...]
    bars: tuple[Bar, ...]
    bounds: tuple[Bound, ...]


class CurvePanel(msgspec.Struct, frozen=True, kw_only=True):
    title: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]
    bounds: tuple[Bound, ...]
    log_x: bool


Panel = LinePanel | BarPanel | CurvePanel


def goodput(runs: Sequence[Run]) -> LinePanel:
    return LinePanel(
        title="Goodput",
        y_label="goodput (requests/s)",
        lines=tuple(series.lines(runs, lambda result: result.goodput_rps, "goodput")),
        ideal="every request good",
    )


def attainment(runs: Sequence[Run]) -> LinePanel:
    lines = series.lines(runs, lambda result: _percent(result.attainment), "attainment")
    targets = [group[0].result.slo.attainment_target * 100 for _, group in series.grouped(runs)]
    return LinePanel(
        title="Attainment",
        y_label="attainment (% of requests)",
        lines=tuple(lines),
        targets=tuple(Bound(target, f"target {target:.4g} %") for target in series.distinct(targets)),
        crossings=tuple(map(series.crossing, lines, targets)),
    )


def latency(runs: Sequence[Run]) -> tuple[Panel, ...]:
    if len(runs) > MOST_BARS:
        raise PlotError(
            f"latency: {len(runs)} runs are too many to compare side by side; at most {MOST_BARS}"
        )
    slos = [run.result.slo for run in runs]

    def panel(
        name: str,
        title: str,
        values: Callable[[Result], Percentiles | TbtPercentiles],
        bounds: tuple[Bound, ...],
    ) -> BarPanel:
        bars = series.bars(runs, lambda result: (values(result).p50, values(result).p90, values(result).p99))
        return BarPanel(
            title=title,
            y_label=f"{name} (ms)",
            groups=("P50", "P90", "P99"),
            bars=tuple(bars),
            bounds=bounds,
        )

    return (
        panel("TTFT", "Time to first token", lambda result: result.ttft_ms, _ttft_bounds(slos)),
        panel("TBT", "Time between tokens, all gaps", lambda result: result.tbt_ms, _tbt_bounds(slos)),
        panel("TPOT", "Time per output token, by request", lambda result: result.tpot_ms, _tbt_bounds(slos)),
    )


def distributions(logs: Sequence[Log]) -> tuple[Panel, ...]:
    slos = [log.slo for log in logs]
    ttft, tbt = series.curves(logs, series.ttfts_ms), series.curves(logs, metrics.gaps_ms)
    for log, curve in zip(logs, ttft, strict=True):
        if not curve.points:
            raise PlotError(f"{log.source}: no request was answered")
    return (
        CurvePanel(
            title="Time to first token",
            x_label="TTFT (ms)",
            y_label="share of answered requests (%)",
            curves=tuple(ttft),
            bounds=_ttft_bounds(slos),
            log_x=_long_tailed(ttft),
        ),
        CurvePanel(
            title="Time between tokens, all gaps",
            x_label="TBT (ms)",
            y_label="share of gaps (%)",
            curves=tuple(tbt),
            bounds=_tbt_bounds(slos),
            log_x=_long_tailed(tbt),
        ),
    )


def _ttft_bounds(slos: Iterable[Slo]) -> tuple[Bound, ...]:
    bounds = series.distinct((slo.ttft_ms, slo.ttft_per_token_ms) for slo in slos)
    return tuple(
        Bound(value, f"bound {value:g} ms" + (f" + {rise:g} ms per uncached token" if rise else ""))
        for value, rise in bounds
        if value is not None
    )


def _tbt_bounds(slos: Iterable[Slo]) -> tuple[Bound, ...]:
    bounds = series.distinct(slo.tbt_ms for slo in slos)
    return tuple(Bound(value, f"bound {value:g} ms") for value in bounds if value is not None)


def _long_tailed(curves: Sequence[Curve]) -> bool:
    """Whether a linear axis would show only the tail; a logarithmic one can't show zero."""
    for curve in curves:
        values = [value for value, _ in curve.points]
        if values and values[0] <= 0:
            return False
    medians = [
        next(value for value, share in curve.points if share >= 0.5) for curve in curves if curve.points
    ]
    return bool(medians) and max(curve.points[-1][0] for curve in curves if curve.points) > LONG_TAIL * min(
        medians
    )


def _percent(share: float | None) -> float | None:
    return None if share is None else share * 100
