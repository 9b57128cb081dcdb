"""How a router does, all at once: what a worker tells its parent, and what the admin port shows of all of them."""

from __future__ import annotations

import collections
from collections.abc import Sequence

import msgspec

from drift_router import counters, promises, recent_decisions
from drift_router.counters import Counters, Tally
from drift_router.nodes import statuses
from drift_router.nodes.statuses import NodeStatus
from drift_router.options import Promise
from drift_router.promises import Promised
from drift_router.recent_decisions import Decided

WINDOW_S = 60.0
"""Over which rates and attainment are told: long enough for a hundred requests of a small service. Estimate."""

SAMPLE_S = 5.0
"""Between two samples that the window begins at."""


class Picture(msgspec.Struct, frozen=True):
    """Of one worker, or of all together."""

    counters: Counters
    nodes: list[NodeStatus]
    index_bytes: int
    """Held by the prefix index; each worker has its own."""
    index_blocks: int
    draining: bool
    """Told to stop."""
    workers: int = 1
    worker_restarts: int = 0
    reload_failures: int = 0
    """How often nodes or keys that changed could not be used or read."""
    nodes_problem: str = ""
    """Why the list of nodes may be old; empty: it is not."""
    promised: Promised = promises.at_first(Promise())
    promised_for_s: float = 0.0
    """Since the router's start, or since its promise changed."""
    decided: tuple[Decided, ...] = ()
    """Some of the last decisions, newest first."""


class LengthClass(msgspec.Struct, frozen=True):
    """Requests by the prompt tokens that no node held. All but the edge only grow."""

    up_to_tokens: int | None
    """None: above all other classes."""
    requests: int
    uncached_tokens: int
    ttft_kept: int
    ttft_missed: int


class Totals(msgspec.Struct, frozen=True):
    """What was counted since the router's start, or since its promise last changed. Only grows; what it is of is told
    by `counters.Tally`.
    """

    uptime_s: float
    requests: int
    """Sent to a node."""
    overloaded: int
    """Answered 429 because the queue was full, the wait too long or the nodes had no room."""
    failed: int
    """Answered with 5xx, or broken off."""
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    ttft_kept: int
    ttft_missed: int
    tbt_kept: int
    tbt_missed: int
    ttft: counters.Histogram
    tbt: counters.Histogram
    classes: tuple[LengthClass, ...]
    """By ascending length."""


class RouterReport(msgspec.Struct, frozen=True):
    """`GET /control/v1/report` of a router. What has a `window_s` is of that time, up to now."""

    workers: int
    worker_restarts: int
    draining: bool
    nodes: int
    eligible_nodes: int
    nodes_problem: str
    """Why the list of nodes may be old; empty: it is not."""
    in_flight: int
    queue_depth: int
    window_s: float
    requests_per_s: float
    rejected_per_s: float
    prompt_tokens_per_s: float
    predicted_hit_ratio: float | None
    """Of the prompts' tokens; None where there were none."""
    confirmed_hit_ratio: float | None
    ttft_p50_s: float | None
    ttft_p99_s: float | None
    tbt_p50_s: float | None
    tbt_p99_s: float | None
    attainment: dict[str, float]
    """Share of requests for which each promise was kept; without those that no request was judged by."""
    promise: Promised
    """What is promised now, and what `totals` are of."""
    totals: Totals
    decided: tuple[Decided, ...] = ()
    """Some of the last decisions, newest first (`recent_decisions`)."""


def merged(pictures: Sequence[Picture]) -> Picture:
    """Of at least one."""
    return Picture(
        counters.merged(picture.counters for picture in pictures),
        statuses.merged(picture.nodes for picture in pictures),
        sum(picture.index_bytes for picture in pictures),
        sum(picture.index_blocks for picture in pictures),
        any(picture.draining for picture in pictures),
        sum(picture.workers for picture in pictures),
        sum(picture.worker_restarts for picture in pictures),
        sum(picture.reload_failures for picture in pictures),
        decided=recent_decisions.merged(picture.decided for picture in pictures),
    )


class Recent:
    """Counters of the last minute, so that rates can be told without anybody who asks regularly."""

    def __init__(self) -> None:
        self._samples: collections.deque[tuple[float, Counters]] = collections.deque()

    def sample(self, taken: Counters, now_s: float) -> None:
        samples = self._samples
        if not samples or now_s - samples[-1][0] >= SAMPLE_S:
            samples.append((now_s, taken.copy()))
        while len(samples) > 1 and now_s - samples[1][0] >= WINDOW_S:
            samples.popleft()  # the next one is old enough to begin with

    def report(self, picture: Picture, now_s: float) -> RouterReport:
        start_s, start = self._samples[0] if self._samples else (now_s, picture.counters)
        window_s = max(0.0, now_s - start_s)
        recent = picture.counters.plus(start, -1)
        tally = recent.tally

        def per_s(count: int) -> float:
            return count / window_s if window_s else 0.0

        def ratio(part: int, whole: int) -> float | None:
            return part / whole if whole > 0 else None

        judged = {
            "ttft": (tally.ttft_kept, tally.ttft_kept + tally.ttft_missed),
            "tbt": (tally.tbt_kept, tally.tbt_kept + tally.tbt_missed),
        }
        attainment = {promise: kept / among for promise, (kept, among) in judged.items() if among}
        return RouterReport(
            workers=picture.workers,
            worker_restarts=picture.worker_restarts,
            draining=picture.draining,
            nodes=sum(not node.removed for node in picture.nodes),
            eligible_nodes=sum(node.eligible for node in picture.nodes),
            nodes_problem=picture.nodes_problem,
            in_flight=picture.counters.in_flight,
            queue_depth=picture.counters.queue_depth,
            window_s=window_s,
            requests_per_s=per_s(sum(recent.requests.values())),
            rejected_per_s=per_s(sum(recent.rejected.values())),
            prompt_tokens_per_s=per_s(max(0, recent.prompt_tokens)),
            predicted_hit_ratio=ratio(recent.predicted_hit_tokens, recent.prompt_tokens),
            confirmed_hit_ratio=ratio(recent.confirmed_hit_tokens, recent.prompt_tokens),
            ttft_p50_s=tally.ttft.quantile(0.5),
            ttft_p99_s=tally.ttft.quantile(0.99),
            tbt_p50_s=tally.tbt.quantile(0.5),
            tbt_p99_s=tally.tbt.quantile(0.99),
            attainment=attainment,
            promise=picture.promised,
            totals=_totals(picture.counters.tally, picture.promised_for_s),
            decided=picture.decided,
        )


def _totals(tally: Tally, uptime_s: float) -> Totals:
    rows = zip(
        (*counters.LENGTH_EDGES_TOKENS, None),
        tally.class_requests,
        tally.class_uncached_tokens,
        tally.class_ttft_kept,
        tally.class_ttft_missed,
        strict=True,
    )
    return Totals(
        uptime_s=uptime_s,
        requests=tally.requests,
        overloaded=tally.overloaded,
        failed=tally.failed,
        prompt_tokens=tally.prompt_tokens,
        cached_tokens=tally.cached_tokens,
        output_tokens=tally.output_tokens,
        ttft_kept=tally.ttft_kept,
        ttft_missed=tally.ttft_missed,
        tbt_kept=tally.tbt_kept,
        tbt_missed=tally.tbt_missed,
        ttft=tally.ttft,
        tbt=tally.tbt,
        classes=tuple(LengthClass(*row) for row in rows),
    )
