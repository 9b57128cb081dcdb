"""The promise's figures for people, as they stand in the status: rounded, and still while they mean the same.

A figure that was shown is shown again until it has moved by more than chance moves it, so that steady traffic writes
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from drift_operator.driftservice import Slo
from drift_operator.levers.attainment import Counts, Judged, Ledger, quantile_s
from drift_operator.status import SloStatus, TargetStatus
from drift_router.counters import TBT_EDGES_S, TTFT_EDGES_S

STILL = 0.15
"""Share by which times, burn rate and count may move unseen. Estimate: a P99 of some hundred requests moves as much
by chance."""

STILL_MISSES = 0.25
"""Of the allowed share of misses: by so much attainment may move unseen, unless it passes the target."""

MOST_COUNT = 1_000_000
"""Bound of the field."""


def figures(ledger: Ledger, slo: Slo, shown: SloStatus | None) -> SloStatus:
    """Over the service's window; `shown` is what stands there now."""
    sums = ledger.window.all
    ttft, tbt = (shown.ttft, shown.tbt) if shown is not None else (None, None)
    return SloStatus(
        ttft=_target(sums.ttft, _quantiles(sums.ttft_s, TTFT_EDGES_S), slo.ttft.attainment, ttft),
        tbt=_target(sums.tbt, _quantiles(sums.tbt_s, TBT_EDGES_S), slo.tbt.attainment, tbt),
    )


def significant(value: float, digits: int = 2) -> float:
    """1234.5 -> 1200, 0.01234 -> 0.012."""
    return float(f"{value:.{digits}g}")


def _quantiles(counts: Counts, edges: Sequence[float]) -> tuple[float | None, float | None]:
    """P50 and P99 in milliseconds."""
    p50_s, p99_s = (quantile_s(counts, share, edges) for share in (0.5, 0.99))
    return None if p50_s is None else 1000 * p50_s, None if p99_s is None else 1000 * p99_s


def _target(
    judged: Judged,
    quantiles_ms: tuple[float | None, float | None],
    target: float,
    shown: TargetStatus | None,
) -> TargetStatus | None:
    attainment = judged.attainment
    if attainment is None:
        return None
    shown = shown or TargetStatus()
    return TargetStatus.model_validate(
        {
            "attainment": _still_share(attainment, shown.attainment, target),
            "p50Ms": _still(quantiles_ms[0], shown.p50_ms),
            "p99Ms": _still(quantiles_ms[1], shown.p99_ms),
            "burnRate": _still(judged.burn(target), shown.burn_rate, 0.1),
            "requests": round(_still(min(judged.total, MOST_COUNT), shown.requests, 3.0) or 0.0),
        }
    )


def _still(value: float | None, shown: float | None, least: float = 0.0) -> float | None:
    """`least` is by how much it may move however small it is."""
    if value is None:
        return None
    if shown is not None and abs(value - shown) <= max(least, STILL * shown):
        return shown
    return significant(value)


def _still_share(value: float, shown: float | None, target: float) -> float:
    """Rounded down to a tenth of what may be missed: 0.98996 must not be shown as a kept 0.99."""
    if (
        shown is not None
        and abs(value - shown) <= STILL_MISSES * (1 - target)
        and (value >= target) == (shown >= target)
    ):
        return shown
    digits = 1 - math.floor(math.log10(1 - target) + 1e-9)
    parts: int = 10**digits
    return round(math.floor(value * parts + 1e-9) / parts, digits)
