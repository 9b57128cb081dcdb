"""The result of a run, as `drift bench --json` and `drift simulate --json` write it. See docs/bench.md.

Fields are only added within a version of `RESULT_SCHEMA`; a change of meaning is a new version. `None` means: not
measured, or not defined for this run (a percentile of nothing, attainment without a bound).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from drift_engine import wire
from drift_engine.errors import EngineError

RESULT_SCHEMA = "drift.result/1"


class ResultError(EngineError):
    """A result file can't be read or written."""


class Slo(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one request; None is no bound."""

    ttft_ms: float | None = None
    ttft_per_token_ms: float = 0.0
    """Raises a request's TTFT bound by so much per uncached prompt token."""
    tbt_ms: float | None = None
    attainment_target: float = 0.99

    def __post_init__(self) -> None:
        for field, value in (("ttft_ms", self.ttft_ms), ("tbt_ms", self.tbt_ms)):
            if value is not None and not value > 0:
                raise ValueError(f"slo.{field}: {value} is not above 0")
        if self.ttft_per_token_ms < 0:
            raise ValueError(f"slo.ttft_per_token_ms: {self.ttft_per_token_ms} is below 0")
        if not 0 < self.attainment_target <= 1:
            raise ValueError(f"slo.attainment_target: {self.attainment_target} is not in (0, 1]")

    @property
    def bounded(self) -> bool:
        return self.ttft_ms is not None or self.tbt_ms is not None


class Percentiles(msgspec.Struct, frozen=True, kw_only=True):
    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    max: float | None = None


class TbtPercentiles(msgspec.Struct, frozen=True, kw_only=True):
    """Of all gaps of all requests; `worst_gap_*` of each request's worst gap."""

    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    max: float | None = None
    worst_gap_p50: float | None = None
    worst_gap_p99: float | None = None


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """Share of requests that met both bounds under one reading of the TBT bound, and their rate."""

    attainment: float
    goodput_rps: float


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """What was sent."""

    trace: str
    format: str
    rate_scale: float = 1.0
    length_scale: float = 1.0
    arrivals: Literal["recorded", "spread", "poisson"] = "recorded"
    overlong: Literal["clip", "skip"] = "clip"
    concurrency_limit: int | None = None
    chat: bool = False
    seed: int = 0


class Generator(msgspec.Struct, frozen=True, kw_only=True):
    """The load generator's own share in the latencies."""

    send_lag_ms: Percentiles
    loop_lag_ms: Percentiles | None = None
    """Of its event loop, sampled: how late a token's arrival may have been noticed."""
    reliable: bool
    """The P99 of both is within the limit of 5 ms."""


class Count(msgspec.Struct, frozen=True, kw_only=True):
    client: int
    server: int | None
    """None where the server has no such metric."""


class ServerCounts(msgspec.Struct, frozen=True, kw_only=True):
    """The log against the growth of the server's own counters over the run."""

    requests: Count
    prompt_tokens: Count
    generation_tokens: Count
    agree: bool


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """One rate of a sweep."""

    rate_rps: float
    attainment: float
    """Of a run that was given up, what it could have reached at best."""
    kept: bool


class Sweep(msgspec.Struct, frozen=True, kw_only=True):
    """The search for the highest rate that keeps the promise; all else in the result is of the run at that rate."""

    goodput_rps: float | None
    """That rate, as offered; None where the promise was kept at no rate."""
    tried: tuple[Tried, ...]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    schema: str = RESULT_SCHEMA
    kind: Literal["bench", "simulate"]
    mode: str
    """How the engine shared its device (`fused`, `mux`, ...); "unknown" where the server does not say."""
    date: str
    command: str
    drift_version: str
    url: str | None = None
    model: str
    workload: Workload
    interrupted: bool = False

    requests: int
    """Offered: answered or failed."""
    failed: int
    failures: dict[str, int]
    """Count by reason."""
    skipped: int = 0
    """Not sent: longer than the model's context. Not among `requests`."""
    clipped_prompts: int
    clipped_outputs: int
    short_outputs: int
    """Answers that ended before the length that they were forced to; they count as not met."""
    one_token_answers: int
    """Answers without a gap: judged on TTFT alone."""

    duration_s: float
    """First arrival to the end of the last request, at least `window_s`."""
    window_s: float
    """Seconds over which requests were offered."""
    rate_rps: float | None
    """Offered: requests / window_s."""
    completed_rps: float
    """Answered: (requests - failed) / duration_s."""

    slo: Slo
    attainment: float | None
    """Share of requests that met both bounds, TBT by the P99 of the request's own gaps."""
    goodput_rps: float | None
    """The rate of those: met / duration_s."""
    attained: bool | None
    """attainment >= slo.attainment_target"""
    ttft_attainment: float | None
    tbt_attainment: float | None
    by_worst_gap: Judgement | None
    """The same with TBT by the request's worst gap."""
    by_mean_gap: Judgement | None
    """The same with TBT by the request's TPOT, as most other tools judge."""

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
    """Every chunk's number of tokens is known."""

    generator: Generator | None = None
    server_counts: ServerCounts | None = None
    realtime_factor: float | None = None
    """Simulations: simulated seconds per second."""
    hardware: str | None = None
    """Simulations: of one node, as 2 x h200."""
    nodes: int | None = None
    """Simulations."""
    routing: str | None = None
    """Simulations: how requests were spread over nodes."""
    levers: str | None = None
    """Simulations: which ones the operator moved."""
    lever_moves: dict[str, int] | None = None
    """Simulations: its decisions, by lever."""
    nodes_least: int | None = None
    nodes_most: int | None = None
    """Simulations: that served at a time."""
    gpu_s: float | None = None
    """Simulations: GPU-seconds from the first moment to the last answer, start-ups included."""
    gpu_s_per_good: float | None = None
    """Simulations: for each request that met both bounds; None where none did."""
    sweep: Sweep | None = None


def dump(result: Result) -> bytes:
    """Readable JSON with a newline at the end."""
    return msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n"


def write(result: Result, path: Path) -> None:
    """Raises ResultError."""
    try:
        path.write_bytes(dump(result))
    except OSError as error:
        raise ResultError(f"{path}: can't be written: {error.strerror}") from error


def read(path: Path) -> Result:
    """Raises ResultError that says what is wrong with the file."""
    try:
        result = msgspec.json.decode(path.read_bytes(), type=Result)
    except OSError as error:
        raise ResultError(f"{path}: can't be read: {error.strerror}") from error
    except wire.UNREADABLE as error:
        raise ResultError(f"{path}: is not a result of schema {RESULT_SCHEMA}: {error}") from error
    if result.schema != RESULT_SCHEMA:
        raise ResultError(f"{path}: schema {result.schema}, this version reads {RESULT_SCHEMA}")
    return result
