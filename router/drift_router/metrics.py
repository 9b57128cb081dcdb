"""A picture of the router as Prometheus text. Nothing here is touched while requests are served."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from drift_engine.tracing.spans import Outcome
from drift_router.counters import Counters, Histogram, Rejection, Resumption
from drift_router.nodes.breaker import Circuit, Failure
from drift_router.nodes.statuses import NodeStatus
from drift_router.pictures import Picture
from drift_router.snapshots import IndexState, Reason

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

CIRCUITS = {Circuit.CLOSED: 0, Circuit.HALF_OPEN: 1, Circuit.OPEN: 2}


def render(picture: Picture) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(picture))
    return generate_latest(registry)


class _Collector(Collector):
    def __init__(self, picture: Picture) -> None:
        self._picture = picture

    def collect(self) -> Iterator[Metric]:
        picture = self._picture
        yield from _of_requests(picture.counters)
        yield GaugeMetricFamily("drift_router_workers", "Processes that serve.", picture.workers)
        yield CounterMetricFamily(
            "drift_router_worker_restarts",
            "Workers that ended and were started again.",
            picture.worker_restarts,
        )
        yield CounterMetricFamily(
            "drift_router_reload_failures",
            "Nodes or keys that changed and could not be used or read.",
            picture.reload_failures,
        )
        yield GaugeMetricFamily(
            "drift_router_index_bytes", "Held by the prefix indexes of all workers.", picture.index_bytes
        )
        yield GaugeMetricFamily(
            "drift_router_index_blocks", "Blocks in the prefix indexes of all workers.", picture.index_blocks
        )
        yield from _of_nodes(picture.nodes)
        yield _failures(picture.counters, picture.nodes)


def _of_requests(counters: Counters) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "drift_router_requests", "Requests that were answered, by status.", labels=["code"]
    )
    for code, count in sorted(counters.requests.items()):
        requests.add_metric([str(code)], count)
    yield requests
    yield GaugeMetricFamily("drift_router_inflight", "Requests without their last byte.", counters.in_flight)
    yield GaugeMetricFamily(
        "drift_router_queue_depth", "Requests that wait for room under the promise.", counters.queue_depth
    )
    histograms = {
        "drift_router_ttft_seconds": (
            "From a request's end to its stream's first byte.",
            counters.tally.ttft,
        ),
        "drift_router_tbt_seconds": ("Between two writes of tokens to a client.", counters.tally.tbt),
        "drift_router_queue_wait_seconds": ("Waited for room under the promise.", counters.queue_wait),
    }
    for name, (text, histogram) in histograms.items():
        yield _histogram(name, text, histogram)
    yield _by_label(
        "drift_router_decisions", "Routing decisions, by reason.", "reason", Reason, counters.decisions
    )
    yield _by_label(
        "drift_router_rejected", "Requests refused by the router.", "reason", Rejection, counters.rejected
    )
    yield _by_label(
        "drift_router_resumes",
        "Broken streams, by what became of them.",
        "outcome",
        Resumption,
        counters.resumes,
    )
    yield CounterMetricFamily(
        "drift_router_retries", "Requests offered to another node before their first byte.", counters.retries
    )
    yield _by_label(
        "drift_router_trace_spans",
        "Spans of traces, by what became of them.",
        "outcome",
        Outcome,
        counters.trace_spans,
    )
    promises = CounterMetricFamily(
        "drift_router_slo_requests", "Requests by promise and whether it was kept.", labels=["slo", "met"]
    )
    tally = counters.tally
    for promise, kept, missed in (
        ("ttft", tally.ttft_kept, tally.ttft_missed),
        ("tbt", tally.tbt_kept, tally.tbt_missed),
    ):
        promises.add_metric([promise, "true"], kept)
        promises.add_metric([promise, "false"], missed)
    yield promises
    yield CounterMetricFamily(
        "drift_router_prompt_tokens",
        "Prompt tokens sent to nodes, counted or estimated.",
        counters.prompt_tokens,
    )
    hits = CounterMetricFamily(
        "drift_router_prefix_hit_tokens",
        "Prompt tokens that a node held: as the index predicted, and as the answers confirmed.",
        labels=["source"],
    )
    hits.add_metric(["predicted"], counters.predicted_hit_tokens)
    hits.add_metric(["confirmed"], counters.confirmed_hit_tokens)
    yield hits


def _of_nodes(nodes: Iterable[NodeStatus]) -> Iterator[Metric]:
    families: dict[str, tuple[str, Callable[[NodeStatus], float]]] = {
        "in_flight": ("Requests of this router on the node.", lambda node: node.in_flight),
        "eligible": ("1: it may be sent requests.", lambda node: int(node.eligible)),
        "draining": ("1: it is on its way out and finishes what it has.", lambda node: int(node.draining)),
        "weight": ("The operator's wish, 0 to 1.", lambda node: node.weight),
        "warmth": ("Of its full share, 0 to 1.", lambda node: node.warmth),
        "trust": ("Share of the index's promises that its answers confirm.", lambda node: node.trust),
        "queued_tokens": ("Uncached prompt tokens that it has to compute.", lambda node: node.queued_tokens),
        "prefill_tokens_per_second": ("As the router believes.", lambda node: node.prefill_tokens_per_s),
        "circuit_state": ("0 closed, 1 half-open, 2 open.", lambda node: CIRCUITS[node.circuit]),
    }
    listed = [node for node in nodes if not node.removed]
    for name, (text, value) in families.items():
        family = GaugeMetricFamily(f"drift_router_node_{name}", text, labels=["node"])
        for node in listed:
            family.add_metric([node.name], value(node))
        yield family
    states = GaugeMetricFamily(
        "drift_router_index_state", "1 at how well the node's cache is known.", labels=["node", "state"]
    )
    for node in listed:
        for state in IndexState:
            states.add_metric([node.name, state], int(node.index is state))
    yield states


def _failures(counters: Counters, nodes: Iterable[NodeStatus]) -> Metric:
    """Of nodes on the list, also those that never failed: a rate needs the zero before the first failure."""
    family = CounterMetricFamily(
        "drift_router_node_failures", "Requests that a node failed, by how.", labels=["node", "kind"]
    )
    for name in sorted({node.name for node in nodes if not node.removed}):
        failed = counters.node_failures.get(name, {})
        for failure in Failure:
            family.add_metric([name, failure], failed.get(failure, 0))
    return family


def _by_label(
    name: str, text: str, label: str, values: Iterable[str], counts: Mapping[str, int]
) -> CounterMetricFamily:
    """All values that the label can have, and no others."""
    family = CounterMetricFamily(name, text, labels=[label])
    for value in values:
        family.add_metric([value], counts.get(value, 0))
    return family


def _histogram(name: str, text: str, histogram: Histogram) -> HistogramMetricFamily:
    buckets: list[tuple[str, float]] = []
    total = 0
    for edge, count in zip((*map(str, map(float, histogram.edges)), "+Inf"), histogram.counts, strict=True):
        total += count
        buckets.append((edge, total))
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=histogram.sum)
