"""Small token-time logs and the results that follow from them."""

from __future__ import annotations

from typing import Any

from drift_engine.bench import metrics
from drift_engine.bench.records import RequestRecord
from drift_engine.bench.results import Result, Slo, Workload

SLO = Slo(ttft_ms=200, tbt_ms=50, attainment_target=0.9)


def records(rate_rps: float = 2.0, *, late: int = 0, failed: int = 0) -> list[RequestRecord]:
    """Ten requests of four tokens; the first `late` of them have a late first token."""
    made = []
    for index in range(10):
        first_s = 0.3 if index < late else 0.1
        times_s = tuple(first_s + 0.03 * token for token in range(4))
        made.append(
            RequestRecord(
                index=index,
                scheduled_s=index / rate_rps,
                due_s=index / rate_rps,
                token_times_s=times_s,
                token_counts=(1,) * 4,
                end_s=times_s[-1],
                status="failed" if index >= 10 - failed else "ok",
                prompt_tokens=100,
                output_tokens=4,
                asked_prompt_tokens=100,
                asked_output_tokens=4,
                exact_counts=True,
            )
        )
    return made


def result(
    mode: str = "mux", rate_rps: float = 2.0, *, late: int = 0, slo: Slo = SLO, **fields: Any
) -> Result:
    workload = fields.pop("workload", Workload(trace="", format="synthetic", arrivals="poisson"))
    told = {
        "kind": "bench",
        "mode": mode,
        "date": "2026-01-01T00:00:00+00:00",
        "command": "drift bench",
        "drift_version": "0",
        "model": "small",
        "workload": workload,
        **metrics.summarize(records(rate_rps, late=late), slo),
        **fields,
    }
    return Result(**told)
