"""How many nodes keep a promise: the least number, for each way to run them, with all of them and with one that dies.

Pure but for the simulations that `least` asks for. Documents of `drift plan --json`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec

from drift_engine.bench.results import Percentiles, Result, Slo, Workload

PLAN_SCHEMA = "drift.plan/1"

FEW_MISSES = 10
"""Where fewer may miss, another trace of the same kind has three more or less by chance alone (their square root)."""


class Tried(msgspec.Struct, frozen=True):
    """One number of nodes. `attainment` of a run that was given up is what it could have reached at best."""

    nodes: int
    attainment: float
    kept: bool


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """Of one way to run, under one assumption."""

    nodes: int | None
    """The fewest that keep the promise; None: not even the most that were allowed."""
    tried: tuple[Tried, ...]
    """By the number of nodes."""
    attainment: float | None = None
    """With that many; so are all the others."""
    ttft_ms: Percentiles | None = None
    worst_gap_p99_ms: float | None = None
    cached_share: float | None = None
    gpu_s: float | None = None
    gpu_s_per_good: float | None = None
    window_s: float | None = None


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One way to run."""

    mode: str
    policy: str
    whole: Outlook
    """With no node lost."""
    bereft: Outlook | None = None
    """With one that dies in the middle and stays away; None: not asked."""

    @property
    def name(self) -> str:
        return f"{self.mode}, {self.policy}"

    @property
    def needed(self) -> int | None:
        """Nodes to have."""
        return self.whole.nodes if self.bereft is None else self.bereft.nodes


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    schema: str = PLAN_SCHEMA
    date: str
    command: str
    drift_version: str
    model: str
    hardware: str
    """Of one node."""
    gpus: int
    """Of one node."""
    workload: Workload
    requests: int
    rate_rps: float | None
    slo: Slo
    levers: str
    max_nodes: int
    loss_at_s: float | None
    """When a node dies in the runs that lose one."""
    choices: tuple[Choice, ...]

    @property
    def best(self) -> Choice | None:
        """That needs the fewest nodes; of equals the one with the lowest P99 of the time to the first token."""
        found = [choice for choice in self.choices if choice.needed is not None]
        return min(found, key=_rank, default=None)


def _rank(choice: Choice) -> tuple[int, float]:
    looked = choice.bereft or choice.whole
    p99_ms = looked.ttft_ms.p99 if looked.ttft_ms is not None else None
    return choice.needed or 0, p99_ms if p99_ms is not None else float("inf")


Keeping = Callable[[int], tuple[float, bool]]
"""With so many nodes: (attainment, promise kept)."""


def least(keeps: Keeping, most: int, first: int = 1) -> tuple[int | None, tuple[Tried, ...]]:
    """The fewest nodes that keep the promise, from 1 to `most`; None where `most` do not. Twice as many from `first`
    on until some do, then by bisection. Assumes that more nodes are no worse."""
    tried: dict[int, Tried] = {}

    def asked(nodes: int) -> bool:
        attainment, kept = keeps(nodes)
        tried[nodes] = Tried(nodes, attainment, kept)
        return kept

    low, high = 0, min(max(1, first), most)  # `low` nodes do not keep it
    while not asked(high):
        low = high
        if high == most:
            return None, _sorted(tried)
        high = min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        if asked(middle):
            high = middle
        else:
            low = middle
    return high, _sorted(tried)


def _sorted(tried: dict[int, Tried]) -> tuple[Tried, ...]:
    return tuple(tried[nodes] for nodes in sorted(tried))


def outlook(nodes: int | None, tried: Sequence[Tried], result: Result | None) -> Outlook:
    """`result` is of the run with `nodes`."""
    if result is None:
        return Outlook(nodes=nodes, tried=tuple(tried))
    return Outlook(
        nodes=nodes,
        tried=tuple(tried),
        attainment=result.attainment,
        ttft_ms=result.ttft_ms,
        worst_gap_p99_ms=result.tbt_ms.worst_gap_p99,
        cached_share=result.cached_share,
        gpu_s=result.gpu_s,
        gpu_s_per_good=result.gpu_s_per_good,
        window_s=result.window_s,
    )


def dump(plan: Plan) -> bytes:
    """Readable JSON with a newline at the end."""
    return msgspec.json.format(msgspec.json.encode(plan), indent=2) + b"\n"


def sentence(plan: Plan) -> str:
    """What to do, for people."""
    best = plan.best
    if best is None:
        return f"Not even {plan.max_nodes} nodes keep the promise, in any of the ways that were tried."
    nodes = best.needed or 0
    text = f"{nodes} node{'s' * (nodes != 1)} ({best.name}) keep{'s' * (nodes == 1)} the promise"
    if best.bereft is None:
        return f"{text}."
    if best.whole.nodes == nodes:
        return f"{text}, also when one of them dies."
    return f"{text} when one of them dies; {best.whole.nodes} would do while none does."


def caution(plan: Plan) -> str | None:
    """Where the answer owes much to chance."""
    target = plan.slo.attainment_target
    most = math.floor(plan.requests * (1 - target) + 1e-9)
    if most >= FEW_MISSES or target == 1.0:
        return None
    enough = math.ceil(FEW_MISSES / (1 - target) - 1e-9)
    return (
        f"With {plan.requests} requests {most} may miss the promise, so that one more or less decides: "
        f"{enough:,} requests or more tell it from chance."
    )
