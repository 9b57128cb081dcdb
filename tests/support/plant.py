"""How a node does under a load: what a closed loop's operator steers, as a few formulas.

A fluid model of requests that are all alike, on an H200 that serves an 8B model unless a test says otherwise:

    prefill    one at a time, so a queue with one server; the chance to wait longer than t falls as in M/D/1 under
               heavy traffic: use * exp(-2 (1 - use) t / prefill_s)
    decode     as many rows as arrive during an answer (Little); a step with more rows takes longer, so both are
               solved together: tbt = f c / (1 - f rate output (a context + b)), with the contention f

Only for tests of what steers nodes: trends and signs are right, numbers are estimates.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from drift_engine import wire
from drift_engine.hardware import profiles, shapes
from drift_engine.hardware.roofline import Roofline
from drift_engine.latency.loads import Load

FULL = 0.999
"""The use of a server whose queue only grows, as far as formulas with 1 - use go."""

SPREAD = 0.1
"""Of the time between tokens around its mean, as a share of it: standard deviation. Estimate."""


@dataclass(frozen=True)
class Demand:
    """Requests that are all alike."""

    requests_per_s: float = 0.0
    prompt_tokens: int = 1024
    cached_tokens: int = 0
    """Of the prompt, found in the prefix cache."""
    output_tokens: int = 128

    @property
    def new_tokens(self) -> int:
        return self.prompt_tokens - self.cached_tokens

    @property
    def context_tokens(self) -> float:
        """Of a row on average."""
        return self.prompt_tokens + self.output_tokens / 2


@dataclass(frozen=True)
class Flow:
    """One node at a moment."""

    prefill_use: float
    """Of its prefill lane; above 1 the queue grows."""
    served_per_s: float
    """Most requests a second."""
    rows: float
    waiting: float
    """Requests that wait for their prefill by chance, beside those of a queue that grows."""
    tbt_s: float
    ttft_s: float
    ttft_kept: float
    """Share of requests."""
    tbt_kept: float


@functools.cache
def costs(hardware: str = "h200", shape: str = "llama-8b") -> tuple[wire.SplitCost, ...]:
    """One for each way to split the GPU, fewest decode SMs first."""
    gpu = profiles.named(hardware)
    roofline = Roofline(gpu, shapes.read(shape))
    return tuple(_cost(roofline, split.decode_sms, split.prefill_sms) for split in profiles.splits(gpu))


@functools.cache
def whole(hardware: str = "h200", shape: str = "llama-8b") -> wire.SplitCost:
    """Each phase alone on all of the GPU."""
    gpu = profiles.named(hardware)
    return _cost(Roofline(gpu, shapes.read(shape)), gpu.sms, gpu.sms, contention=1.0)


def _cost(
    roofline: Roofline, decode_sms: int, prefill_sms: int, contention: float | None = None
) -> wire.SplitCost:
    """The latency model's formulas through a few points of the roofline."""

    def prefill_s(new: int, reused: int) -> float:
        return roofline.pass_s(Load.prefill([(new, reused)]), prefill_sms)

    def decode_s(rows: int, context: int) -> float:
        return roofline.pass_s(Load.decode(rows, rows * context), decode_sms)

    lengths = (256, 1024, 4096, 16384)
    squared_s, token_s, pass_s = np.polyfit(lengths, [prefill_s(new, 0) for new in lengths], 2)
    reused_s = (prefill_s(1024, 4096) - prefill_s(1024, 0)) / (1024 * 4096)
    context_s = (decode_s(32, 4096) - decode_s(32, 1024)) / (32 * 3072)
    row_s = (decode_s(64, 0) - decode_s(1, 0)) / 63
    beside = Load.prefill([(2048, 0)])
    found = roofline.slowdown(Load.decode(32, 32 * 1024), decode_sms, beside, prefill_sms)
    return wire.SplitCost(
        decode_sms,
        prefill_sms,
        (max(0.0, float(squared_s)), max(0.0, reused_s), max(0.0, float(token_s)), max(0.0, float(pass_s))),
        (max(0.0, context_s), max(0.0, row_s), decode_s(1, 0)),
        found if contention is None else contention,
    )


def prefill_s(cost: wire.SplitCost, demand: Demand) -> float:
    a, b, c, d = cost.prefill_s
    new, reused = demand.new_tokens, demand.cached_tokens
    return a * new * new + b * new * reused + c * new + d


def prefill_tokens_per_s(cost: wire.SplitCost, demand: Demand) -> float:
    return demand.new_tokens / prefill_s(cost, demand)


def flow(
    cost: wire.SplitCost,
    demand: Demand,
    rate_per_s: float,
    queue: float,
    targets: wire.Targets,
    max_running: int,
) -> Flow:
    """`queue`: requests that wait for their prefill, or for a row."""
    one_s = prefill_s(cost, demand)
    context_s, row_s, step_s = (cost.contention * each for each in cost.decode_s)
    per_row_s = context_s * demand.context_tokens + row_s
    full_s = per_row_s * max_running + step_s
    served_per_s = min(1.0 / one_s, max_running / (demand.output_tokens * full_s))
    arriving_per_s = served_per_s if queue > 0 else min(rate_per_s, served_per_s)
    room = 1.0 - arriving_per_s * demand.output_tokens * per_row_s
    tbt_s = min(full_s, step_s / room) if room > 0 else full_s
    rows = min(float(max_running), arriving_per_s * demand.output_tokens * tbt_s)
    use = min(FULL, rate_per_s / served_per_s)
    target_s = (targets.ttft_ms + targets.ttft_per_token_ms * demand.new_tokens) / 1000
    queued_s = queue / served_per_s
    waiting = use / (2 * (1 - use))
    spare_s = target_s - queued_s - one_s
    late = use * math.exp(-2 * (1 - use) * spare_s / one_s) if spare_s > 0 else 1.0
    off = (targets.tbt_ms / 1000 - tbt_s) / (SPREAD * tbt_s)
    return Flow(
        prefill_use=rate_per_s * one_s,
        served_per_s=served_per_s,
        rows=rows,
        waiting=waiting,
        tbt_s=tbt_s,
        ttft_s=queued_s + one_s + waiting * one_s,
        ttft_kept=1.0 - late,
        tbt_kept=0.5 * math.erfc(-off / math.sqrt(2)),
    )


def planned(
    choices: Sequence[wire.SplitCost],
    bounds: tuple[int, int] | None,
    demand: Demand,
    rate_per_s: float,
    targets: wire.Targets,
    max_running: int,
) -> wire.SplitCost:
    """What the node's own planner takes within the bounds: what keeps the promise most often; of those that are
    alike, what serves most."""
    low, high = bounds or (1, max(cost.decode_sms for cost in choices))

    def worth(cost: wire.SplitCost) -> tuple[float, float]:
        found = flow(cost, demand, rate_per_s, 0.0, targets, max_running)
        kept = min(found.ttft_kept, found.tbt_kept) if rate_per_s < found.served_per_s else 0.0
        return round(kept, 3), found.served_per_s

    return max((cost for cost in choices if low <= cost.decode_sms <= high), key=worth)


def queue_after(queue: float, rate_per_s: float, served_per_s: float, seconds: float) -> float:
    return max(0.0, queue + (rate_per_s - served_per_s) * seconds)
