"""Which request rate a node can carry under the promise, and so how much of its fleet a service uses.

In: what passes cost on the nodes (their latency models), and the mix of requests: lengths, reuse, answers. A lane
prefills a prompt in S = a n^2 + b n r + c n + d. All nodes' lanes are one queue with as many servers, because the
router sends a request where it waits least:

    P(wait) = rho^(sqrt(2 (m + 1)) - 1)         Sakasegawa 1977, for m servers
    E[W]    = P(wait) / (m (1 - rho)) * E[S^2] / (2 E[S])                Allen and Cunneen 1978, Poisson arrivals
    P(W > t) = P(wait) * exp(-t * P(wait) / E[W])                        exponential, as in M/M/m

and a rate is carried where the attained share of requests, those whose wait and prefill fit into their target, is
what was promised. A decode lane has B rows by Little's law (rows = rate * answer tokens * step), a step takes
contention * (a B context + b B + c), and must fit into the TBT target; rows also need memory.

Where a device is not split, decode steps and prefill chunks take turns within a TBT target, so prefill has the share
1 - rate * answer tokens * (a context + b) - c / target of it.

The best split for a mix does not depend on the number of nodes but for the queue; so N - 1 nodes are judged by the
same search with one less.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from drift_engine import wire
from drift_operator.driftservice import Slo

FILL = 0.95
"""Of a TBT target that a step may fill, as the nodes' planner plans."""

MEMORY = 0.9
"""Of the KV cache that rows may fill; the nodes' planner turns to finishing decodes near there."""

LEAST_SHARE = 0.25
"""Of its throughput a node is taken to carry even where prompts have hardly any time to wait: there the formulas ask
for idle nodes without end, and the router's choice of the node that is idle does more. Estimate."""

BATCHED_TOKENS = 512
"""Prompts shorter than this share a pass, and its constant, with others. Estimate: what saturates a GPU's GEMMs."""

STEPS = 18
"""Of halving the interval of rates: known to four millionths of its throughput."""

SPLITTING = frozenset((wire.Mode.AUTO, wire.Mode.MUX, wire.Mode.MUXWISE, wire.Mode.BATCH_TABLE))
"""Modes that give each phase a part of the device."""


class Prompts(NamedTuple):
    """Prompts of one class of lengths."""

    share: float
    """Of the requests."""
    new_tokens: float
    """Usual uncached length."""


@dataclass(frozen=True, slots=True)
class Mix:
    """What a usual request asks for."""

    prompts: tuple[Prompts, ...]
    reused_tokens: float = 0.0
    answer_tokens: float = 0.0

    @property
    def context_tokens(self) -> float:
        """Of a decode row, in the middle of its answer."""
        prompt = self.reused_tokens + sum(share * new for share, new in self.prompts)
        return prompt + self.answer_tokens / 2

    def only(self, keep: Iterable[bool]) -> Mix:
        """Of the requests of some classes; shares are then of those."""
        kept = [prompts for prompts, wanted in zip(self.prompts, keep, strict=True) if wanted]
        whole = sum(prompts.share for prompts in kept)
        prompts = tuple(Prompts(one.share / whole, one.new_tokens) for one in kept) if whole else ()
        return Mix(prompts, self.reused_tokens, self.answer_tokens)


class Way(NamedTuple):
    """A way to use a device: a split, or the whole of it in turns."""

    cost: wire.SplitCost
    split: bool


class Capacity(NamedTuple):
    """Of one node, in requests a second of the mix."""

    rate: float
    """Up to which the promise is kept; 0: at none."""
    way: Way | None
    """That carries most."""


NONE = Capacity(0.0, None)


class Use(NamedTuple):
    """Of one node at some rate."""

    prefill: float
    """Share of the time that its prefill lane works; from 1 on its queue grows without end."""
    decode: float
    """Share of the tokens a second that fit under the TBT target and into memory."""
    ttft_kept: float
    """Share of requests whose first token is in time."""
    tbt_s: float
    """Of a decode step."""


def prefill_s(cost: wire.SplitCost, new_tokens: float, reused_tokens: float, *, alone: bool = False) -> float:
    """Of one prompt; `alone` it pays for its pass by itself."""
    a, b, c, d = cost.prefill_s
    share = 1.0 if alone else min(1.0, new_tokens / BATCHED_TOKENS)
    return (a * new_tokens + b * reused_tokens + c) * new_tokens + d * share


def step_s(cost: wire.SplitCost, rows: float, context_tokens: float) -> float:
    """Of one decode step of `rows` rows with so much context each, beside a prefill."""
    a, b, c = cost.decode_s
    return cost.contention * (rows * (a * context_tokens + b) + c)


def budget_s(slo: Slo, new_tokens: float) -> float:
    """For the first token."""
    return (slo.ttft.target_ms + slo.ttft.per_token_ms * new_tokens) / 1000


def ways(report: wire.Report, bounds: tuple[int, int] | None = None) -> tuple[Way, ...]:
    """Those of a node, as far as their costs are known. `bounds` are the spec's, in decode SMs."""
    least, most = bounds or (1, 1 << 30)
    splitting = report.mode in SPLITTING
    costs = report.costs if splitting else ()
    found = [Way(cost, split=True) for cost in costs if least <= cost.decode_sms <= most]
    if report.whole is not None and not (found and report.mode is not wire.Mode.AUTO):
        found.append(Way(report.whole, split=False))
    return tuple(found)


def of_node(report: wire.Report, found: Sequence[Way], mix: Mix, slo: Slo, nodes: int) -> Capacity:
    """At the best of `found`, in a fleet of `nodes` that share the queue."""
    best = NONE
    if not mix.prompts:
        return best
    bounds = sorted(((_throughput(way, report, mix, slo), way) for way in found), key=lambda pair: -pair[0])
    for bound, way in bounds:
        if bound <= best.rate:
            break
        rate = max(_rate(way, report, mix, slo, nodes, bound), LEAST_SHARE * bound)
        if rate > best.rate:
            best = Capacity(rate, way)
    return best


def throughput(report: wire.Report, found: Sequence[Way], mix: Mix, slo: Slo) -> float:
    """Requests a second at which the queue of a node would grow without end, whatever the promise for the first
    token."""
    return max((_throughput(way, report, mix, slo) for way in found), default=0.0)


def use(way: Way, report: wire.Report, rate: float, mix: Mix, slo: Slo, nodes: int) -> Use:
    """Of one of `nodes` nodes that gets `rate` requests a second."""
    cost, tokens_per_s = way.cost, rate * mix.answer_tokens
    per_row_s = cost.contention * _row_s(cost, mix)
    fixed_s = cost.contention * cost.decode_s[2]
    busy = tokens_per_s * per_row_s
    tbt_s = fixed_s / (1 - busy) if busy < 1 else math.inf
    free = 1.0
    if not way.split:
        target_s = FILL * slo.tbt.target_ms / 1000
        rows = tokens_per_s * min(tbt_s, target_s)
        free = 1 - busy + math.expm1(-rows) * fixed_s / target_s  # steps without rows are none
        if rate and free < 1:
            tbt_s = max(tbt_s, target_s)
    usual_s = sum(one.share * prefill_s(cost, one.new_tokens, mix.reused_tokens) for one in mix.prompts)
    most = _decode_rate(way, report, mix, slo)
    return Use(
        prefill=rate * usual_s / free if free > 0 else math.inf,
        decode=(rate / most if most else math.inf) if mix.answer_tokens else 0.0,
        ttft_kept=_ttft_kept(cost, free, rate, mix, slo, nodes),
        tbt_s=tbt_s,
    )


def _rate(way: Way, report: wire.Report, mix: Mix, slo: Slo, nodes: int, bound: float) -> float:
    """The highest below `bound` at which the first tokens are in time."""

    def kept(rate: float) -> bool:
        return use(way, report, rate, mix, slo, nodes).ttft_kept >= slo.ttft.attainment

    low, high = 0.0, bound
    if kept(high):
        return high
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if kept(middle) else (low, middle)
    return low


def _throughput(way: Way, report: wire.Report, mix: Mix, slo: Slo) -> float:
    usual_s = sum(one.share * prefill_s(way.cost, one.new_tokens, mix.reused_tokens) for one in mix.prompts)
    decode = _decode_rate(way, report, mix, slo)
    if not way.split:
        target_s = FILL * slo.tbt.target_ms / 1000
        fixed = way.cost.decode_s[2] / target_s if mix.answer_tokens else 0.0
        usual_s = (usual_s + mix.answer_tokens * _row_s(way.cost, mix)) / max(1e-9, 1 - fixed)
    return min(1 / max(usual_s, 1e-9), decode)


def _decode_rate(way: Way, report: wire.Report, mix: Mix, slo: Slo) -> float:
    """Requests a second whose answers fit under the TBT target and into memory."""
    if not mix.answer_tokens:
        return math.inf
    cost = way.cost
    per_row_s = max(_row_s(cost, mix), 1e-12)
    target_s = FILL * slo.tbt.target_ms / 1000
    rows = (target_s / cost.contention - cost.decode_s[2]) / per_row_s
    kv_tokens = MEMORY * report.kv_pages_total * report.page_tokens or math.inf
    rows = min(rows, kv_tokens / max(1.0, mix.context_tokens), report.max_running or math.inf)
    if rows <= 0:
        return 0.0
    return rows / max(step_s(cost, rows, mix.context_tokens), 1e-9) / mix.answer_tokens


def _row_s(cost: wire.SplitCost, mix: Mix) -> float:
    return cost.decode_s[0] * mix.context_tokens + cost.decode_s[1]


def _ttft_kept(cost: wire.SplitCost, free: float, rate: float, mix: Mix, slo: Slo, servers: int) -> float:
    """The attained share where prefill has the share `free` of the lane's time."""
    if free <= 0:
        return 0.0
    times = [(one, prefill_s(cost, one.new_tokens, mix.reused_tokens) / free) for one in mix.prompts]
    mean_s = sum(one.share * time_s for one, time_s in times)
    squared = sum(one.share * time_s * time_s for one, time_s in times)
    busy = rate * mean_s
    if busy >= 1:
        return 0.0
    waits = busy ** (math.sqrt(2 * (servers + 1)) - 1)
    wait_s = waits / (servers * (1 - busy)) * squared / (2 * mean_s) if mean_s else 0.0
    kept = 0.0
    for one, time_s in times:
        spare_s = budget_s(slo, one.new_tokens) - time_s
        if spare_s >= 0:
            late = waits * math.exp(-spare_s * waits / wait_s) if wait_s else 0.0
            kept += one.share * (1 - late)
    return min(1.0, kept)
