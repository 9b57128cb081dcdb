"""From a token-time log to numbers. Pure: the same log always gives the same result, from a server or a simulator.

Definitions (docs/bench.md has them for readers): latencies count from `due_s`. TTFT is the first arrival of tokens.
A gap is the time between two successive arrivals of one request. TPOT is (last - first) / (tokens - 1). Percentiles
interpolate linearly between ranks; the P99 of one request's gaps is the nearest rank, so that "P99 gap <= bound"
means "at least 99 % of its gaps are within the bound".
"""

from __future__ import annotations

import collections
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypedDict

from drift_engine.bench.records import RequestRecord
from drift_engine.bench.results import Generator, Judgement, Percentiles, Slo, TbtPercentiles

RELIABLE_LAG_MS = 5.0
"""A tenth of a 50 ms TBT bound: above it the generator's lag shows in the verdict."""

REASONS_SHOWN = 10
"""Kinds of failure that a result names; the log has them all."""


class Summary(TypedDict):
    """The fields of `results.Result` that come from the log."""

    requests: int
    failed: int
    failures: dict[str, int]
    clipped_prompts: int
    clipped_outputs: int
    short_outputs: int
    one_token_answers: int
    duration_s: float
    window_s: float
    rate_rps: float | None
    completed_rps: float
    slo: Slo
    attainment: float | None
    goodput_rps: float | None
    attained: bool | None
    ttft_attainment: float | None
    tbt_attainment: float | None
    by_worst_gap: Judgement | None
    by_mean_gap: Judgement | None
    ttft_ms: Percentiles
    tbt_ms: TbtPercentiles
    tpot_ms: Percentiles
    e2e_ms: Percentiles
    prompt_tokens: int
    asked_prompt_tokens: int
    cached_tokens: int
    cached_share: float | None
    output_tokens: int
    asked_output_tokens: int
    prompt_tokens_per_s: float
    output_tokens_per_s: float
    exact_token_counts: bool


def summarize(records: Sequence[RequestRecord], slo: Slo) -> Summary:
    """Everything that a log says about a run, judged by `slo`."""
    answered = [record for record in records if record.status == "ok"]
    start_s = min((record.due_s for record in records), default=0.0)
    window_s = offered_s(records)
    # At least the window: goodput must not exceed the offered rate because the last answer was quick.
    duration_s = max((record.due_s + record.end_s - start_s for record in records), default=0.0)
    duration_s = max(duration_s, window_s)
    own_gaps = [gaps_ms(record) for record in answered]
    gaps = sorted(itertools.chain.from_iterable(own_gaps))
    worst = sorted(max(own) for own in own_gaps if own)
    prompt_tokens = _total(record.prompt_tokens for record in answered)
    cached_tokens = _total(record.cached_tokens for record in answered)
    output_tokens = sum(output_count(record) for record in answered)

    def share(good: Callable[[RequestRecord], bool]) -> float | None:
        return sum(map(good, records)) / len(records) if records else None

    def judge(tbt_met: Callable[[RequestRecord, float], bool]) -> Judgement | None:
        if not slo.bounded or not records:
            return None
        good = sum(ttft_met(record, slo) and _within(record, slo.tbt_ms, tbt_met) for record in records)
        return Judgement(attainment=good / len(records), goodput_rps=_rate(good, duration_s))

    verdict = judge(p99_gap_met)
    return Summary(
        requests=len(records),
        failed=len(records) - len(answered),
        failures=_reasons(records),
        clipped_prompts=sum(record.clipped_prompt for record in records),
        clipped_outputs=sum(record.clipped_output for record in records),
        short_outputs=sum(is_short(record) for record in answered),
        one_token_answers=sum(output_count(record) == 1 for record in answered),
        duration_s=duration_s,
        window_s=window_s,
        rate_rps=len(records) / window_s if window_s > 0 else None,
        completed_rps=_rate(len(answered), duration_s),
        slo=slo,
        attainment=None if verdict is None else verdict.attainment,
        goodput_rps=None if verdict is None else verdict.goodput_rps,
        attained=None if verdict is None else verdict.attainment >= slo.attainment_target,
        ttft_attainment=None if slo.ttft_ms is None else share(lambda record: ttft_met(record, slo)),
        tbt_attainment=(
            None
            if slo.tbt_ms is None
            else share(lambda record: _usable(record) and _within(record, slo.tbt_ms, p99_gap_met))
        ),
        by_worst_gap=judge(worst_gap_met),
        by_mean_gap=judge(mean_gap_met),
        ttft_ms=percentiles(_present(map(ttft_ms, answered))),
        tbt_ms=TbtPercentiles(
            p50=percentile(gaps, 50),
            p90=percentile(gaps, 90),
            p99=percentile(gaps, 99),
            max=gaps[-1] if gaps else None,
            worst_gap_p50=percentile(worst, 50),
            worst_gap_p99=percentile(worst, 99),
        ),
        tpot_ms=percentiles(_present(map(tpot_ms, answered))),
        e2e_ms=percentiles(record.end_s * 1e3 for record in answered),
        prompt_tokens=prompt_tokens,
        asked_prompt_tokens=_total(record.asked_prompt_tokens for record in records),
        cached_tokens=cached_tokens,
        cached_share=cached_tokens / prompt_tokens if prompt_tokens else None,
        output_tokens=output_tokens,
        asked_output_tokens=_total(record.asked_output_tokens for record in records),
        prompt_tokens_per_s=_rate(prompt_tokens, duration_s),
        output_tokens_per_s=_rate(output_tokens, duration_s),
        exact_token_counts=all(record.exact_counts for record in answered),
    )


def offered_s(records: Sequence[RequestRecord]) -> float:
    """Seconds over which requests were offered, the mean gap after the last one included, so that requests / window
    is the rate; 0 for a single instant.
    """
    if len(records) < 2:
        return 0.0
    times_s = [record.scheduled_s for record in records]
    return (max(times_s) - min(times_s)) * len(records) / (len(records) - 1)


def ttft_ms(record: RequestRecord) -> float | None:
    return record.token_times_s[0] * 1e3 if record.token_times_s else None


def gaps_ms(record: RequestRecord) -> list[float]:
    return [(after - before) * 1e3 for before, after in itertools.pairwise(record.token_times_s)]


def tpot_ms(record: RequestRecord) -> float | None:
    """None below two tokens."""
    tokens = output_count(record)
    if tokens < 2 or not record.token_times_s:
        return None
    return (record.token_times_s[-1] - record.token_times_s[0]) * 1e3 / (tokens - 1)


def output_count(record: RequestRecord) -> int:
    """The server's count, or the counted arrivals where it gave none."""
    return sum(record.token_counts) if record.output_tokens is None else record.output_tokens


def is_short(record: RequestRecord) -> bool:
    asked = record.asked_output_tokens
    return record.forced_length and asked is not None and output_count(record) < asked


def ttft_met(record: RequestRecord, slo: Slo) -> bool:
    """Without a bound: answered at all. The bound grows with the uncached part of the prompt."""
    if not _usable(record):
        return False
    value = ttft_ms(record)
    return value is not None and value <= ttft_bound_ms(record, slo)


def both_met(record: RequestRecord, slo: Slo) -> bool:
    """As `Result.attainment` counts: the gaps by the request's own P99."""
    return ttft_met(record, slo) and _within(record, slo.tbt_ms, p99_gap_met)


def ttft_most_s(slo: Slo, prompt_tokens: int) -> float:
    """The bound of such a request with nothing cached; infinity where there is none."""
    if slo.ttft_ms is None:
        return math.inf
    return (slo.ttft_ms + slo.ttft_per_token_ms * prompt_tokens) / 1e3


def ttft_bound_ms(record: RequestRecord, slo: Slo) -> float:
    """Infinity where there is none."""
    if slo.ttft_ms is None:
        return math.inf
    uncached = (record.prompt_tokens or 0) - (record.cached_tokens or 0)
    return slo.ttft_ms + slo.ttft_per_token_ms * uncached


def p99_gap_met(record: RequestRecord, tbt_ms: float) -> bool:
    gaps = sorted(gaps_ms(record))
    return not gaps or gaps[math.ceil(0.99 * len(gaps)) - 1] <= tbt_ms


def worst_gap_met(record: RequestRecord, tbt_ms: float) -> bool:
    return max(gaps_ms(record), default=0.0) <= tbt_ms


def mean_gap_met(record: RequestRecord, tbt_ms: float) -> bool:
    value = tpot_ms(record)
    return value is None or value <= tbt_ms


def _usable(record: RequestRecord) -> bool:
    return record.status == "ok" and not is_short(record)


def _within(record: RequestRecord, tbt_ms: float | None, met: Callable[[RequestRecord, float], bool]) -> bool:
    return tbt_ms is None or met(record, tbt_ms)


def _reasons(records: Iterable[RequestRecord]) -> dict[str, int]:
    counted = collections.Counter(record.reason for record in records if record.status == "failed")
    reasons = dict(counted.most_common(REASONS_SHOWN))
    rest = counted.total() - sum(reasons.values())
    return {**reasons, "other": rest} if rest else reasons


def generator_share(records: Sequence[RequestRecord], loop_lags_s: Sequence[float]) -> Generator:
    """How late the load generator itself was."""
    send = percentiles(record.lag_s * 1e3 for record in records)
    loop = percentiles(lag_s * 1e3 for lag_s in loop_lags_s)
    worst = max(send.p99 or 0.0, loop.p99 or 0.0)
    return Generator(
        send_lag_ms=send, loop_lag_ms=loop if loop_lags_s else None, reliable=worst <= RELIABLE_LAG_MS
    )


def percentiles(values: Iterable[float]) -> Percentiles:
    ordered = sorted(values)
    return Percentiles(
        p50=percentile(ordered, 50),
        p90=percentile(ordered, 90),
        p99=percentile(ordered, 99),
        max=ordered[-1] if ordered else None,
    )


def percentile(ordered: Sequence[float], rank: float) -> float | None:
    """Of ascending values, linear interpolation between the closest ranks (numpy's default); None of nothing."""
    if not ordered:
        return None
    place = (len(ordered) - 1) * rank / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _present(values: Iterable[float | None]) -> Iterable[float]:
    return (value for value in values if value is not None)


def _total(values: Iterable[int | None]) -> int:
    return sum(value or 0 for value in values)


def _rate(count: int, duration_s: float) -> float:
    return count / duration_s if duration_s > 0 else 0.0
