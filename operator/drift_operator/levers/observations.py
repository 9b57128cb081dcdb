"""What is known of a service at a moment, and what of it can be believed.

In: the last report of every node and router, however old. Out: the same without what cannot be (`sane`). A report
with an impossible number, or an old one, is no report: unknown, which is not zero.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from drift_engine import wire
from drift_router.counters import Histogram
from drift_router.pictures import Totals

STALE_S = 10.0
"""A report that is older says nothing of now: some ten update intervals, each a deadline of 1 s. Estimate."""

MOST_SMS = 1024
"""As in the resource; the largest device known has 160."""

MOST_COUNT = 1 << 53
"""Above it a JSON number is no exact count any more; a counter of tokens needs centuries to get there."""

MOST_S = 1e6
"""Of a latency or a coefficient: eleven days."""

MOST_EDGES = 64
"""Of a histogram; a router has twenty. More would let a liar fill the operator's memory."""

MOST_CLASSES = 16

MOST_SPLITS = 128
"""Twice those of a device of 132 SMs in steps of two."""

MOST_LENGTHS = 16
"""Twice those for which a node tells what goes before a prompt."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node pod, and what it said last."""

    name: str
    report: wire.Report | None = None
    age_s: float = math.inf
    """Of the report."""
    ready: bool = False
    """It takes requests, as far as the cluster knows."""
    leaving: bool = False
    """It is told to go, or was chosen to."""
    started_s: float = 0.0
    """When it was made; of any clock, to tell the newest."""
    problem: str = ""
    """Why there is no report, for people."""

    @property
    def serves(self) -> bool:
        return self.ready and not self.leaving


@dataclass(frozen=True, slots=True)
class Router:
    name: str
    totals: Totals | None = None
    in_flight: int = 0
    queue_depth: int = 0
    age_s: float = math.inf
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Replicas:
    """Of the nodes' Deployment. Leaving pods are not among the present ones."""

    wanted: int
    present: int
    pending: int = 0
    """Present and not ready."""
    unschedulable: int = 0
    """Of the pending ones, those for which the cluster has no place."""
    why: str = ""
    """In the scheduler's words."""


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything that is known of a service now."""

    nodes: tuple[Node, ...] = ()
    routers: tuple[Router, ...] = ()
    replicas: Replicas = Replicas(0, 0)
    routed: bool = True
    """False: clients ask the only node itself, so nothing counts which promises are kept."""

    @property
    def busy(self) -> bool:
        """Somebody has requests."""
        return any(router.in_flight or router.queue_depth for router in self.routers) or any(
            node.report is not None and node.report.in_flight for node in self.nodes
        )

    @property
    def serving(self) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes if node.serves)


def sane(observation: Observation) -> tuple[Observation, tuple[str, ...]]:
    """Without reports that are old or cannot be, and why those of serving nodes and of routers are unknown."""
    nodes = tuple(_sane_node(node) for node in observation.nodes)
    routers = tuple(_sane_router(router) for router in observation.routers)
    problems = [f"node {node.name}: {node.problem}" for node in nodes if node.serves and node.report is None]
    problems += [f"router {router.name}: {router.problem}" for router in routers if router.totals is None]
    if not routers and observation.routed:
        problems.append("no router was found")
    return replace(observation, nodes=nodes, routers=routers), tuple(problems)


def _sane_node(node: Node) -> Node:
    problem = node.problem or "it has not reported yet"
    if node.report is not None:
        problem = _old(node.age_s) or next(_report_faults(node.report), "")
        if not problem:
            return node
    return replace(node, report=None, problem=problem)


def _sane_router(router: Router) -> Router:
    problem = router.problem or "it has not reported yet"
    if router.totals is not None:
        gauges = (("in_flight", router.in_flight), ("queue_depth", router.queue_depth))
        faults = itertools.chain(_counts(gauges), _totals_faults(router.totals))
        problem = _old(router.age_s) or next(faults, "")
        if not problem:
            return router
    return replace(router, totals=None, problem=problem)


def _old(age_s: float) -> str:
    if not age_s >= 0:  # NaN too
        return f"its report's age of {age_s:g} s cannot be"
    return f"its last report is older than {STALE_S:g} s" if age_s > STALE_S else ""


def _report_faults(report: wire.Report) -> Iterator[str]:
    yield from _counts(
        (name, getattr(report, name))
        for name in (
            "in_flight",
            "max_in_flight",
            "running",
            "waiting",
            "queued_tokens",
            "kv_pages_total",
            "page_tokens",
            "max_model_len_tokens",
            "epoch",
            "generation",
            "decode_context_tokens",
            "max_running",
        )
    )
    yield from _amounts((("kv_usage", report.kv_usage), ("weight", report.weight)), 1.0)
    yield from _amounts(
        (
            ("prefill_tokens_per_s", report.prefill_tokens_per_s),
            ("tbt_p50_ms", report.tbt_p50_ms),
            ("tbt_p99_ms", report.tbt_p99_ms),
            ("slo.ttft_ms", report.slo.ttft_ms),
            ("slo.tbt_ms", report.slo.tbt_ms),
        ),
        1000 * MOST_S,
    )
    if len(report.ahead) > MOST_LENGTHS:
        yield f"it has more than {MOST_LENGTHS} lengths in ahead"
    for one in report.ahead:
        yield from _counts((("ahead", one.prompt_tokens), ("ahead", one.queued_tokens)))
    if len(report.legal_splits) > MOST_SPLITS or len(report.costs) > MOST_SPLITS:
        yield f"it has more than {MOST_SPLITS} splits"
    for split in (*report.legal_splits, *((report.split,) if report.split else ())):
        yield from _sms("split", split.decode_sms, split.prefill_sms)
    if report.bounds is not None:
        yield from _sms("bounds", *report.bounds)
    for cost in (*report.costs, *((report.whole,) if report.whole else ())):
        yield from _sms("costs", cost.decode_sms, cost.prefill_sms)
        yield from _amounts((("costs", value) for value in (*cost.prefill_s, *cost.decode_s)), MOST_S)
        if not 0.5 <= cost.contention <= 100:
            yield f"contention: {cost.contention:g} cannot be"


def _totals_faults(totals: Totals) -> Iterator[str]:
    yield from _amounts((("uptime_s", totals.uptime_s),), MOST_COUNT)
    yield from _counts(
        (name, getattr(totals, name))
        for name in (
            "requests",
            "overloaded",
            "failed",
            "prompt_tokens",
            "cached_tokens",
            "output_tokens",
            "ttft_kept",
            "ttft_missed",
            "tbt_kept",
            "tbt_missed",
        )
    )
    for name, histogram in (("ttft", totals.ttft), ("tbt", totals.tbt)):
        yield from _histogram_faults(name, histogram)
    if len(totals.classes) > MOST_CLASSES:
        yield f"it has more than {MOST_CLASSES} classes of lengths"
    lower = -1.0
    for one in totals.classes:
        upper = math.inf if one.up_to_tokens is None else one.up_to_tokens
        if upper <= lower:
            yield "its classes of lengths do not ascend"
        lower = upper
        counts = (one.requests, one.uncached_tokens, one.ttft_kept, one.ttft_missed)
        yield from _counts(("classes", count) for count in counts)


def _histogram_faults(name: str, histogram: Histogram) -> Iterator[str]:
    edges, counts = histogram.edges, histogram.counts
    if len(edges) > MOST_EDGES or len(counts) != len(edges) + 1:
        yield f"{name}: a histogram of {len(edges)} edges and {len(counts)} counts cannot be"
    yield from _amounts(((name, edge) for edge in edges), MOST_S)
    if not all(itertools.starmap(operator.lt, itertools.pairwise(edges))):
        yield f"{name}: the edges do not ascend"
    yield from _counts((name, count) for count in counts)


def _counts(named: Iterable[tuple[str, int]]) -> Iterator[str]:
    for name, count in named:
        if not 0 <= count <= MOST_COUNT:
            yield f"{name}: {count} cannot be"


def _amounts(named: Iterable[tuple[str, float]], most: float) -> Iterator[str]:
    for name, value in named:
        if not 0 <= value <= most:  # NaN too
            yield f"{name}: {value:g} cannot be"


def _sms(name: str, *counts: int) -> Iterator[str]:
    for count in counts:
        if not 1 <= count <= MOST_SMS:
            yield f"{name}: {count} SMs cannot be"
