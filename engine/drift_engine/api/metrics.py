"""What /metrics says: the `vllm:` names that routers and dashboards read, and `drift_*`.

In: every step's statistics and every choice's token times, on one event loop. Out: the Prometheus text.
Counters of the core are taken over when a scrape comes (`_CoreCollector`), not once a step.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from drift_engine import wire
from drift_engine.options import SloOptions
from drift_engine.tracing import starting

disable_created_metrics()  # type: ignore[no-untyped-call]  # a gauge per counter that nobody reads

_TTFT_EDGES_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 20, 60, 120)
_TBT_EDGES_S = (0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2, 5)
_E2E_EDGES_S = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)

_QUEUE_EDGES_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120)

_TBT_QUANTILE = 0.99
"""A request meets its TBT target when this share of its gaps does (its P99 gap is within the target)."""

_RECENT_GAPS = 2048
"""Gaps behind the report's quantiles: some seconds of a busy node."""


def edges(defaults: Sequence[float], target_s: float) -> list[float]:
    """Bucket edges with one exactly at the target, so that attainment can be read from the buckets."""
    return sorted({*defaults, target_s})


class Metrics:
    """One node's numbers. `model` labels the vLLM-compatible ones."""

    def __init__(self, model: str, slo: SloOptions) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.targets = slo.targets
        """May change while the node serves; the histograms keep their edges, at the targets of the start."""
        self.stats: wire.Stats | None = None
        self.costs = wire.Costs((), None)
        self.ready: wire.Ready | None = None
        self.spans = starting.fresh_counts()
        """Of traces, by what became of them."""
        self._gaps_s: collections.deque[float] = collections.deque(maxlen=_RECENT_GAPS)
        tbt = edges(_TBT_EDGES_S, slo.tbt_ms / 1000)

        def histogram(name: str, text: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(name, text, ["model_name"], registry=self.registry, buckets=buckets)

        def counter(name: str, text: str, labels: Sequence[str] = ()) -> Counter:
            return Counter(name, text, ["model_name", *labels], registry=self.registry)

        self._ttft = histogram(
            "vllm:time_to_first_token_seconds",
            "From a request's arrival to its first token.",
            edges(_TTFT_EDGES_S, slo.ttft_ms / 1000),
        ).labels(model)
        gaps = histogram("vllm:inter_token_latency_seconds", "Between two tokens of a request.", tbt)
        self._itl = gaps.labels(model)
        self._e2e = histogram(
            "vllm:e2e_request_latency_seconds", "From a request's arrival to its last token.", _E2E_EDGES_S
        ).labels(model)
        self._queue = histogram(
            "vllm:request_queue_time_seconds",
            "From a request's arrival to its admission.",
            _QUEUE_EDGES_S,
        ).labels(model)
        self._prompt = counter("vllm:prompt_tokens", "Prompt tokens of requests that got a token.").labels(
            model
        )
        self._generated = counter("vllm:generation_tokens", "Tokens generated.").labels(model)
        success = counter("vllm:request_success", "Requests that ended, by reason.", ["finished_reason"])
        self._success = {
            reason: success.labels(model, reason) for reason in ("stop", "length", "abort", "cancelled")
        }
        slo_requests = Counter(
            "drift_slo_requests",
            "Requests by target and whether it was met; a request's TBT is its P99 gap.",
            ["slo", "met"],
            registry=self.registry,
        )
        self._slo = {
            (name, met): slo_requests.labels(name, str(met).lower())
            for name in ("ttft", "tbt")
            for met in (True, False)
        }
        self._rejected = Counter(
            "drift_requests_rejected", "Requests refused before the core.", ["reason"], registry=self.registry
        )
        self.registry.register(_CoreCollector(self, model))
        self.registry.register(_LegacyName(gaps, "vllm:time_per_output_token_seconds"))

    def step(self, stats: wire.Stats) -> None:
        self.stats = stats

    def rejected(self, reason: str) -> None:
        self._rejected.labels(reason).inc()

    def tbt_ms(self, quantile: float) -> float:
        gaps_s = sorted(self._gaps_s)
        return 1000 * gaps_s[min(int(quantile * len(gaps_s)), len(gaps_s) - 1)] if gaps_s else 0.0


class Meter:
    """The times of one choice. Tokens of one output share their gap equally.

    A resumed answer had its first token elsewhere: the wait for the next one is a gap.
    """

    def __init__(
        self,
        metrics: Metrics,
        arrival_s: float,
        prompt_tokens: int,
        slo: wire.Slo,
        *,
        resumed: bool = False,
    ) -> None:
        self._metrics = metrics
        self._arrival_s = arrival_s
        self._prompt_tokens = prompt_tokens
        node = metrics.targets
        self._ttft_ms = slo.ttft_ms
        self._tbt_target_s = (slo.tbt_ms if slo.tbt_ms is not None else node.tbt_ms) / 1000
        self._last_s: float | None = arrival_s if resumed else None
        self._gaps = 0
        self._late_gaps = 0
        self.ended: str | None = None
        """Why; None: it goes on."""
        self.ttft_s: float | None = None

    def tokens(self, at_s: float, count: int, cached_tokens: int, queued_s: float) -> None:
        """`cached_tokens` of the prompt were reused, after a wait of `queued_s`; only the first call's count."""
        if count == 0:
            return
        metrics = self._metrics
        metrics._generated.inc(count)
        if self._last_s is None:
            self.ttft_s = at_s - self._arrival_s
            metrics._prompt.inc(self._prompt_tokens)
            metrics._ttft.observe(self.ttft_s)
            metrics._queue.observe(queued_s)
            metrics._slo["ttft", self.ttft_s <= self._ttft_target_s(cached_tokens)].inc()
            count -= 1  # the first token ends the prefill; its gap is the TTFT
            gap_s = 0.0
        else:
            gap_s = (at_s - self._last_s) / count
        self._last_s = at_s
        for _ in range(count):
            metrics._itl.observe(gap_s)
            metrics._gaps_s.append(gap_s)
        self._gaps += count
        self._late_gaps += count if gap_s > self._tbt_target_s else 0

    def _ttft_target_s(self, cached_tokens: int) -> float:
        """The request's own, or the node's, which grows with the tokens that had to be computed."""
        if self._ttft_ms is not None:
            return self._ttft_ms / 1000
        node = self._metrics.targets
        return (node.ttft_ms + node.ttft_per_token_ms * (self._prompt_tokens - cached_tokens)) / 1000

    def end(self, reason: str, at_s: float) -> None:
        """`reason`: stop, length, abort or cancelled. Only the first call counts."""
        if self.ended is not None:
            return
        self.ended = reason
        metrics = self._metrics
        metrics._success[reason].inc()
        if reason == "cancelled":
            return  # the client left: neither kept nor broken
        metrics._e2e.observe(at_s - self._arrival_s)
        if self._last_s is None:
            metrics._slo["ttft", False].inc()
        if reason == "abort":
            metrics._slo["tbt", False].inc()
        elif self._gaps:
            metrics._slo["tbt", self._late_gaps <= (1 - _TBT_QUANTILE) * self._gaps].inc()


class _CoreCollector(Collector):
    def __init__(self, metrics: Metrics, model: str) -> None:
        self._metrics = metrics
        self._model = model

    def collect(self) -> Iterator[Metric]:
        if (ready := self._metrics.ready) is not None:
            labels = ["model_name", "block_size", "num_gpu_blocks"]
            info = GaugeMetricFamily("vllm:cache_config_info", "Shape of the KV cache.", labels=labels)
            info.add_metric([self._model, str(ready.page_tokens), str(ready.kv_pages)], 1)
            yield info
            labels = ["mode", "device", "hardware", "dtype"]
            node = GaugeMetricFamily("drift_node_info", "How the node runs.", labels=labels)
            node.add_metric([str(ready.mode), ready.device, ready.hardware, ready.dtype], 1)
            yield node
        spans = CounterMetricFamily(
            "drift_trace_spans", "Spans of traces, by what became of them.", labels=["outcome"]
        )
        for outcome, count in self._metrics.spans.items():
            spans.add_metric([outcome], count)
        yield spans
        stats = self._metrics.stats
        if stats is None:
            return
        usage = stats.kv_pages_used / stats.kv_pages_total if stats.kv_pages_total else 0.0
        held = stats.kv_pages_held / stats.kv_pages_total if stats.kv_pages_total else 0.0
        gauges = {
            "vllm:num_requests_running": ("Requests that decode or prefill.", stats.running),
            "vllm:num_requests_waiting": ("Requests that wait.", stats.waiting),
            "vllm:kv_cache_usage_perc": ("Share of KV pages held by requests, 0 to 1.", held),
            "vllm:gpu_cache_usage_perc": ("The same under its old name.", held),
        }
        for name, (text, value) in gauges.items():
            yield _labelled(GaugeMetricFamily(name, text, labels=["model_name"]), self._model, value)
        counters = {
            "vllm:num_preemptions": ("Requests that gave their pages up.", stats.preemptions_total),
            "vllm:prefix_cache_queries": ("Prompt tokens looked up.", stats.prompt_tokens_total),
            "vllm:prefix_cache_hits": ("Prompt tokens found cached.", stats.cached_tokens_total),
        }
        for name, (text, value) in counters.items():
            yield _labelled(CounterMetricFamily(name, text, labels=["model_name"]), self._model, value)
        yield GaugeMetricFamily("drift_kv_used_ratio", "KV pages held or cached, 0 to 1.", usage)
        yield GaugeMetricFamily(
            "drift_queued_tokens", "Uncached prompt tokens not yet computed.", stats.queued_tokens
        )
        own = {
            "drift_steps": ("Steps of the core.", stats.steps_total),
            "drift_forward_seconds": ("In the model's forward.", stats.forward_s_total),
            "drift_overhead_seconds": (
                "Everything else of the steps, sampling among it.",
                stats.overhead_s_total,
            ),
            "drift_computed_prompt_tokens": (
                "Prompt tokens computed, not taken from the cache.",
                stats.computed_prompt_tokens_total,
            ),
            "drift_core_generation_tokens": ("Tokens the core drew.", stats.generation_tokens_total),
        }
        for name, (text, value) in own.items():
            yield CounterMetricFamily(name, text, value)
        activities = CounterMetricFamily(
            "drift_activity_seconds", "How long the device did what.", labels=["activity"]
        )
        for activity, seconds in stats.activity_s_total.items():
            activities.add_metric([activity], seconds)
        yield activities
        predictions = GaugeMetricFamily(
            "drift_prediction_error_ratio",
            "Mean error of a pass's predicted time over recent passes.",
            labels=["kind"],
        )
        for kind, error in stats.prediction_errors.items():
            predictions.add_metric([kind], error)
        yield predictions
        yield GaugeMetricFamily(
            "drift_late_decode_ratio",
            "Share of decode passes beside a prefill that took longer than their predicted bound.",
            stats.late_decode_share,
        )
        if stats.split is not None:
            parts = GaugeMetricFamily(
                "drift_split_sms", "SMs (CPU: cores) of each part, now or when last split.", labels=["phase"]
            )
            parts.add_metric(["decode"], stats.split.decode_sms)
            parts.add_metric(["prefill"], stats.split.prefill_sms)
            yield parts


def _labelled(
    family: GaugeMetricFamily | CounterMetricFamily, model: str, value: float
) -> GaugeMetricFamily | CounterMetricFamily:
    family.add_metric([model], value)
    return family


class _LegacyName(Collector):
    """The same histogram under the name that it had in vLLM before, for dashboards that still read it."""

    def __init__(self, source: Histogram, name: str) -> None:
        self._source = source
        self._name = name

    def collect(self) -> Iterator[Metric]:
        for family in self._source.collect():
            legacy = HistogramMetricFamily(self._name, family.documentation)
            for sample in family.samples:
                if not sample.name.endswith("_created"):
                    name = sample.name.replace(family.name, self._name)
                    legacy.add_sample(name, sample.labels, sample.value)
            yield legacy
