"""Two results side by side, as ratios. Pure; `drift bench --compare` prints it."""

from __future__ import annotations

import msgspec

from drift_engine.bench.results import Result

ROWS = (
    "requests",
    "failed",
    "duration_s",
    "rate_rps",
    "completed_rps",
    "attainment",
    "goodput_rps",
    "by_worst_gap.attainment",
    "by_worst_gap.goodput_rps",
    "ttft_ms.p50",
    "ttft_ms.p90",
    "ttft_ms.p99",
    "tbt_ms.p50",
    "tbt_ms.p99",
    "tbt_ms.worst_gap_p99",
    "tpot_ms.p50",
    "tpot_ms.p99",
    "e2e_ms.p50",
    "e2e_ms.p99",
    "prompt_tokens",
    "cached_share",
    "output_tokens",
    "output_tokens_per_s",
)
SAME = ("kind", "model", "workload", "slo", "requests", "prompt_tokens", "output_tokens")
"""Where these differ, the runs did not do the same work."""


class Row(msgspec.Struct, frozen=True):
    name: str
    a: float | None
    b: float | None
    ratio: float | None
    """b / a; None where either is missing or a is 0."""


class Comparison(msgspec.Struct, frozen=True):
    rows: tuple[Row, ...]
    differences: tuple[str, ...]
    """Why the ratios may not compare like with like."""


def compare(a: Result, b: Result) -> Comparison:
    rows = []
    for name in ROWS:
        left, right = _value(a, name), _value(b, name)
        ratio = right / left if left and right is not None else None
        rows.append(Row(name=name, a=left, b=right, ratio=ratio))
    differences = [
        f"{field}: {_shown(getattr(a, field))} / {_shown(getattr(b, field))}"
        for field in SAME
        if getattr(a, field) != getattr(b, field)
    ]
    differences += [f"{side} was interrupted" for side, result in (("A", a), ("B", b)) if result.interrupted]
    differences += [
        f"{side}: the load generator lagged; its latencies are not the server's alone"
        for side, result in (("A", a), ("B", b))
        if result.generator is not None and not result.generator.reliable
    ]
    return Comparison(rows=tuple(rows), differences=tuple(differences))


def _value(result: Result, name: str) -> float | None:
    value: object = result
    for part in name.split("."):
        value = getattr(value, part, None)
    return float(value) if isinstance(value, int | float) else None


def _shown(value: object) -> str:
    if isinstance(value, msgspec.Struct):
        return msgspec.json.encode(value).decode()
    return str(value)
