"""Results as tables for a terminal: what `drift bench` and `drift simulate` print. Loads neither's work."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table

from drift_engine.bench.comparing import Comparison
from drift_engine.bench.results import Result


def of(result: Result) -> Group:
    """What a person wants to know first."""
    shown = Table(
        "",
        "p50",
        "p90",
        "p99",
        "max",
        title=f"{result.model} {_where(result)}, mode {result.mode}",
        min_width=60,
    )
    for name, spread in (
        ("TTFT ms", result.ttft_ms),
        ("TBT ms (all gaps)", result.tbt_ms),
        ("TPOT ms", result.tpot_ms),
        ("end to end ms", result.e2e_ms),
    ):
        shown.add_row(name, *(_number(value) for value in (spread.p50, spread.p90, spread.p99, spread.max)))
    worst = result.tbt_ms
    shown.add_row("TBT ms (worst gap)", _number(worst.worst_gap_p50), "", _number(worst.worst_gap_p99), "")
    facts = [
        ("requests, failed, skipped", f"{result.requests}, {result.failed}, {result.skipped}"),
        ("seconds", _number(result.duration_s)),
        ("offered, answered per s", f"{_number(result.rate_rps)}, {_number(result.completed_rps)}"),
        ("prompt tokens, cached", f"{result.prompt_tokens}, {_share(result.cached_share)}"),
        ("output tokens, per s", f"{result.output_tokens}, {_number(result.output_tokens_per_s)}"),
    ]
    slo = result.slo
    if slo.bounded:
        bounds = [
            f"{name} {bound:g} ms" for name, bound in (("TTFT", slo.ttft_ms), ("TBT", slo.tbt_ms)) if bound
        ]
        facts.append(("promise", f"{', '.join(bounds)} for {slo.attainment_target:.1%}"))
        for name, attainment, goodput_rps in (
            ("kept (P99 gap), good per s", result.attainment, result.goodput_rps),
            *(
                (f"kept ({reading}), good per s", judgement.attainment, judgement.goodput_rps)
                for reading, judgement in (
                    ("worst gap", result.by_worst_gap),
                    ("mean gap", result.by_mean_gap),
                )
                if judgement is not None
            ),
        ):
            facts.append((name, f"{_share(attainment)}, {_number(goodput_rps)}"))
        facts.append(("one-token answers (TTFT only)", str(result.one_token_answers)))
    if result.generator is not None:
        send, loop = result.generator.send_lag_ms, result.generator.loop_lag_ms
        lags = f"{_number(send.p99)} sending, {_number(loop.p99 if loop else None)} receiving"
        facts.append(("generator's lag p99 ms", lags))
    if result.server_counts is not None:
        facts.append(("server's counters", "agree" if result.server_counts.agree else "DIFFER"))
    if result.lever_moves:
        moves = ", ".join(f"{count} {lever}" for lever, count in sorted(result.lever_moves.items()))
        facts.append(("moves of levers", moves))
    if result.nodes_least is not None and result.nodes_least != result.nodes_most:
        facts.append(("nodes that served", f"{result.nodes_least} to {result.nodes_most}"))
    if result.gpu_s_per_good is not None:
        facts.append(
            ("GPU-seconds, per good one", f"{_number(result.gpu_s)}, {_number(result.gpu_s_per_good)}")
        )
    if result.realtime_factor is not None:
        facts.append(("times real time", _number(result.realtime_factor)))
    if result.sweep is not None:
        facts.append(("highest rate that keeps it", f"{_number(result.sweep.goodput_rps)} per s"))
    told = Table.grid(padding=(0, 2))
    for name, value in facts:
        told.add_row(name, value)
    return Group(shown, told)


def side_by_side(comparison: Comparison, a_name: str, b_name: str) -> Table:
    """Two results and their ratios."""
    shown = Table("", "A", "B", "B / A", title=f"A {a_name}, B {b_name}")
    for row in comparison.rows:
        ratio = "-" if row.ratio is None else f"{row.ratio:.3f}"
        shown.add_row(row.name, _number(row.a), _number(row.b), ratio)
    return shown


def _where(result: Result) -> str:
    if result.kind == "bench":
        return f"at {result.url}"
    return f"on {result.nodes} simulated node{'s' * (result.nodes != 1)} of {result.hardware}"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    if value.is_integer():
        return f"{value:.0f}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
