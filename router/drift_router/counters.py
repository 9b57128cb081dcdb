"""What one worker counts: plain integers that the data plane increments, and that add up over workers.

A `Counters` is its own message: it is encoded as it is, and `merged` with those of the other workers.
"""

from __future__ import annotations

import enum
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import TypeVar

import msgspec

from drift_engine.tracing import starting

TTFT_EDGES_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 20, 60, 120)
TBT_EDGES_S = (0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2, 5)
LENGTH_EDGES_TOKENS = (512, 2048, 8192, 32768, 131072)
"""Of classes of requests, by uncached prompt tokens: from a chat's turn to the longest context of usual models."""
WAIT_EDGES_S = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)

K = TypeVar("K")


class Rejection(enum.StrEnum):
    """Why the router itself answered with an error."""

    MALFORMED = "malformed"
    TOO_LARGE = "too-large"
    UNAUTHORIZED = "unauthorized"
    RATE_LIMIT = "rate-limit"  # of its key
    QUEUE_FULL = "queue-full"
    WAITED = "waited"  # in the queue, for as long as may be
    UNAVAILABLE = "unavailable"  # there is no node
    MEMORY = "memory"  # the router holds as much as it may
    DRAINING = "draining"


class Resumption(enum.StrEnum):
    """What became of a stream that broke."""

    RESUMED = "resumed"
    NOT_RESUMABLE = "not-resumable"  # its tokens are not known, or could not be drawn again
    NO_NODE = "no-node"
    FAILED = "failed"  # the nodes that went on broke it, too


class Histogram(msgspec.Struct):
    """Observations up to each edge; the last count is of those above all edges."""

    edges: tuple[float, ...]
    counts: list[int]
    sum: float = 0.0

    @classmethod
    def over(cls, edges: Sequence[float], target: float | None = None) -> Histogram:
        """With an edge exactly at the target, so that attainment can be read from the counts."""
        all_edges = tuple(sorted({*edges, target} if target is not None else edges))
        return cls(all_edges, [0] * (len(all_edges) + 1))

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.edges, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        return sum(self.counts)

    def quantile(self, share: float) -> float | None:
        """Interpolated within its bucket; None where nothing was observed."""
        left = share * self.count
        for index, count in enumerate(self.counts):
            if count and left <= count:
                low = self.edges[index - 1] if index else 0.0
                high = self.edges[min(index, len(self.edges) - 1)]
                return low + (high - low) * left / count
            left -= count
        return None

    def plus(self, other: Histogram, sign: int = 1) -> Histogram:
        """Edges must be the same: workers have the same targets."""
        if self.edges != other.edges:
            raise ValueError(f"edges: {other.edges} are not {self.edges}")
        counts = [max(0, a + sign * b) for a, b in zip(self.counts, other.counts, strict=True)]
        return Histogram(self.edges, counts, max(0.0, self.sum + sign * other.sum))


class Tally(msgspec.Struct, kw_only=True):
    """What was counted of completions under one promise; begins anew when that changes. Only grows."""

    number: int
    """Of the promise: how often it changed before."""
    ttft: Histogram
    """From the end of a request to the first token of its answer, of streams: a wait for room is part of it."""
    tbt: Histogram
    """Between two writes of tokens to a client."""
    requests: int = 0
    """That were sent to a node, each once, however many tried it."""
    overloaded: int = 0
    """Answered 429 for want of room."""
    failed: int = 0
    """Answered 5xx, or broken off."""
    prompt_tokens: int = 0
    """Of answers that began, as the nodes counted them; estimated of nodes that do not say. So are the next two."""
    cached_tokens: int = 0
    output_tokens: int = 0
    """As `dataplane.exchanges.Exchange.drawn_tokens` knows them."""
    ttft_kept: int = 0
    ttft_missed: int = 0
    tbt_kept: int = 0
    tbt_missed: int = 0
    class_requests: list[int]
    """Of answers that began, by uncached prompt tokens (`LENGTH_EDGES_TOKENS`); so are the next three."""
    class_uncached_tokens: list[int]
    class_ttft_kept: list[int]
    class_ttft_missed: list[int]

    @classmethod
    def fresh(cls, ttft_s: float, tbt_s: float, number: int = 0) -> Tally:
        """With edges of the histograms at what is promised."""
        empty = [0] * (len(LENGTH_EDGES_TOKENS) + 1)
        return cls(
            number=number,
            ttft=Histogram.over(TTFT_EDGES_S, ttft_s),
            tbt=Histogram.over(TBT_EDGES_S, tbt_s),
            class_requests=empty[:],
            class_uncached_tokens=empty[:],
            class_ttft_kept=empty[:],
            class_ttft_missed=empty[:],
        )

    def answered(self, prompt_tokens: int, cached_tokens: int) -> int:
        """An answer begins. Returns its class."""
        uncached_tokens = max(0, prompt_tokens - cached_tokens)
        place = bisect_left(LENGTH_EDGES_TOKENS, uncached_tokens)
        self.prompt_tokens += prompt_tokens
        self.cached_tokens += cached_tokens
        self.class_requests[place] += 1
        self.class_uncached_tokens[place] += uncached_tokens
        return place

    def ttft_judged(self, place: int | None, kept: bool) -> None:
        """`place` is what `answered` returned."""
        self.ttft_kept += kept
        self.ttft_missed += not kept
        if place is not None:
            (self.class_ttft_kept if kept else self.class_ttft_missed)[place] += 1

    def tbt_judged(self, kept: bool) -> None:
        self.tbt_kept += kept
        self.tbt_missed += not kept

    def plus(self, other: Tally, sign: int = 1) -> Tally:
        """Of two promises, what was counted under the later one."""
        if self.number != other.number:
            return self if self.number > other.number else other

        def lists(one: list[int], more: list[int]) -> list[int]:
            return [max(0, a + sign * b) for a, b in zip(one, more, strict=True)]

        return Tally(
            number=self.number,
            ttft=self.ttft.plus(other.ttft, sign),
            tbt=self.tbt.plus(other.tbt, sign),
            requests=self.requests + sign * other.requests,
            overloaded=self.overloaded + sign * other.overloaded,
            failed=self.failed + sign * other.failed,
            prompt_tokens=self.prompt_tokens + sign * other.prompt_tokens,
            cached_tokens=self.cached_tokens + sign * other.cached_tokens,
            output_tokens=self.output_tokens + sign * other.output_tokens,
            ttft_kept=self.ttft_kept + sign * other.ttft_kept,
            ttft_missed=self.ttft_missed + sign * other.ttft_missed,
            tbt_kept=self.tbt_kept + sign * other.tbt_kept,
            tbt_missed=self.tbt_missed + sign * other.tbt_missed,
            class_requests=lists(self.class_requests, other.class_requests),
            class_uncached_tokens=lists(self.class_uncached_tokens, other.class_uncached_tokens),
            class_ttft_kept=lists(self.class_ttft_kept, other.class_ttft_kept),
            class_ttft_missed=lists(self.class_ttft_missed, other.class_ttft_missed),
        )


class Counters(msgspec.Struct, kw_only=True):
    """All but `in_flight` and `queue_depth` only grow; `tally` does until the promise changes."""

    tally: Tally
    queue_wait: Histogram
    requests: dict[int, int] = {}
    """By status."""
    in_flight: int = 0
    queue_depth: int = 0
    decisions: dict[str, int] = {}
    """By `snapshots.Reason`."""
    rejected: dict[str, int] = {}
    """By `Rejection`."""
    resumes: dict[str, int] = {}
    """By `Resumption`."""
    retries: int = 0
    prompt_tokens: int = 0
    """As counted or estimated, of requests that were sent to a node."""
    predicted_hit_tokens: int = 0
    """Of these, what the index said the node holds."""
    confirmed_hit_tokens: int = 0
    """What the nodes' answers said was cached."""
    node_failures: dict[str, dict[str, int]] = {}
    """By node and `breaker.Failure`."""
    trace_spans: dict[str, int] = msgspec.field(default_factory=starting.fresh_counts)
    """By `drift_engine.tracing.spans.Outcome`; a thread writes there, and adds no keys."""

    @classmethod
    def fresh(cls, ttft_s: float, tbt_s: float, number: int = 0) -> Counters:
        """For a router that promises so much."""
        return cls(tally=Tally.fresh(ttft_s, tbt_s, number), queue_wait=Histogram.over(WAIT_EDGES_S))

    def node_failed(self, node: str, failure: str) -> None:
        add(self.node_failures.setdefault(node, {}), failure)

    def keep_nodes(self, names: set[str]) -> None:
        """Forgets nodes that are no more: there may be any number of them over the months."""
        for name in self.node_failures.keys() - names:
            del self.node_failures[name]

    def copy(self) -> Counters:
        """Which changes no more."""
        return msgspec.msgpack.decode(msgspec.msgpack.encode(self), type=Counters)

    def ended(self) -> Counters:
        """Of a worker that is no more: what it counted stays, what it held is gone."""
        return msgspec.structs.replace(self, in_flight=0, queue_depth=0)

    def plus(self, other: Counters, sign: int = 1) -> Counters:
        """The sum, of other objects than these; with -1 what was counted since `other`."""
        return Counters(
            tally=self.tally.plus(other.tally, sign),
            queue_wait=self.queue_wait.plus(other.queue_wait, sign),
            requests=_plus(self.requests, other.requests, sign),
            in_flight=self.in_flight + sign * other.in_flight,
            queue_depth=self.queue_depth + sign * other.queue_depth,
            decisions=_plus(self.decisions, other.decisions, sign),
            rejected=_plus(self.rejected, other.rejected, sign),
            resumes=_plus(self.resumes, other.resumes, sign),
            retries=self.retries + sign * other.retries,
            prompt_tokens=self.prompt_tokens + sign * other.prompt_tokens,
            predicted_hit_tokens=self.predicted_hit_tokens + sign * other.predicted_hit_tokens,
            confirmed_hit_tokens=self.confirmed_hit_tokens + sign * other.confirmed_hit_tokens,
            node_failures={
                name: _plus(self.node_failures.get(name, {}), other.node_failures.get(name, {}), sign)
                for name in {**self.node_failures, **other.node_failures}
            },
            trace_spans=_plus(self.trace_spans, other.trace_spans, sign),
        )


def add(counts: dict[K, int], key: K, amount: int = 1) -> None:
    counts[key] = counts.get(key, 0) + amount


def merged(counters: Iterable[Counters]) -> Counters:
    """The sum of at least one."""
    first, *rest = counters
    for other in rest:
        first = first.plus(other)
    return first


def _plus(one: dict[K, int], other: dict[K, int], sign: int) -> dict[K, int]:
    return {key: max(0, one.get(key, 0) + sign * other.get(key, 0)) for key in {**one, **other}}
