"""What the load generator saw of each request, as a timeline: one row per request that ran beside others.

A request takes the first row that is free when it is due, so there are as many rows as requests were ever under way
at once.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

from drift_engine.bench import metrics
from drift_engine.bench.records import RequestRecord
from drift_engine.bench.results import Slo
from drift_engine.timelines import Bar, Timeline

KEPT_BARS = 200_000
"""The last ones: 1,000 requests of 200 tokens each; 30 MB."""

PICTURE_S = 10.0
"""A picture shows this much before the last request has its first token, so that arrivals fill it and not the end of
the run. Gaps of 25 ms are a millimetre wide."""

COLOURS = {
    "request": "#cbd5e0",
    "first token": "#dd6b20",
    "token": "#2b6cb0",
    "late": "#e53e3e",
    "failed": "#1a202c",
}


def timeline(records: Sequence[RequestRecord], start_s: float, slo: Slo) -> Timeline:
    """`start_s` is the run's start by the clock that the times are to be shown in."""
    ordered = sorted(records, key=lambda record: (record.due_s, record.index))
    rows = pack([(record.due_s, record.due_s + record.end_s) for record in ordered])
    bars = [
        bar for record, row in zip(ordered, rows, strict=True) for bar in _bars(record, row, start_s, slo)
    ]
    if len(bars) > KEPT_BARS:
        bars.sort(key=lambda bar: bar.start_s)  # stable: a request stays before its tokens
        bars = bars[-KEPT_BARS:]
    shown_s = max(
        (record.due_s + (*record.token_times_s, record.end_s)[0] for record in records), default=0.0
    )
    names = [f"requests {row + 1}" for row in range(max(rows, default=-1) + 1)]
    return Timeline("drift bench", 2, names, bars, COLOURS, start_s + shown_s, PICTURE_S)


def pack(intervals: Sequence[tuple[float, float]]) -> list[int]:
    """A row for each of these (start, end), which come by their start: the lowest one whose last interval is over."""
    taken: list[tuple[float, int]] = []  # heap of (end, row)
    free: list[int] = []  # heap
    rows: list[int] = []
    for start_s, end_s in intervals:
        while taken and taken[0][0] <= start_s:
            heapq.heappush(free, heapq.heappop(taken)[1])
        row = heapq.heappop(free) if free else len(taken)
        heapq.heappush(taken, (end_s, row))
        rows.append(row)
    return rows


def _bars(record: RequestRecord, row: int, start_s: float, slo: Slo) -> Iterator[Bar]:
    """The request, and in it the time from sending to the first token, every gap, and how it failed."""
    due_s, name = start_s + record.due_s, f"request {record.index}"
    prompt_tokens = record.asked_prompt_tokens if record.prompt_tokens is None else record.prompt_tokens
    output_tokens = metrics.output_count(record)
    yield Bar(
        row,
        due_s,
        due_s + record.end_s,
        "request",
        f"{name}: {prompt_tokens} tokens, {record.cached_tokens or 0} cached; {output_tokens} answered",
        {
            "index": record.index,
            "session": record.session,
            "prompt_tokens": prompt_tokens,
            "cached_tokens": record.cached_tokens,
            "output_tokens": output_tokens,
            "lag_ms": round(record.lag_s * 1e3, 3),
        },
    )
    last_s = record.sent_s or 0.0
    for token, (time_s, count) in enumerate(zip(record.token_times_s, record.token_counts, strict=True)):
        if token:
            late = slo.tbt_ms is not None and (time_s - last_s) * 1e3 > slo.tbt_ms
        else:
            late = time_s * 1e3 > metrics.ttft_bound_ms(record, slo)
        kind = "late" if late else "token" if token else "first token"
        label = f"{name}: token {token}" if token else f"{name}: first token"
        yield Bar(row, due_s + last_s, due_s + time_s, kind, label, {"tokens": count})
        last_s = time_s
    if record.status == "failed":
        label = f"{name}: {record.reason}"
        yield Bar(row, due_s + last_s, due_s + record.end_s, "failed", label, {"reason": record.reason})
