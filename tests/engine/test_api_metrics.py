"""/metrics: the names that routers and dashboards read, counts that agree with what clients got, exact attainment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import generate_latest, parser

import api_node
import http_calls
from drift_engine import wire
from drift_engine.api.metrics import Meter, Metrics
from drift_engine.options import SloOptions

CHAT: Any = {"model": "small", "messages": [{"role": "user", "content": "hi"}]}
NAMES = {
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:gpu_cache_usage_perc",
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:prefix_cache_queries_total",
    "vllm:prefix_cache_hits_total",
    "vllm:num_preemptions_total",
    "vllm:time_to_first_token_seconds_bucket",
    "vllm:inter_token_latency_seconds_bucket",
    "vllm:time_per_output_token_seconds_bucket",
    "vllm:e2e_request_latency_seconds_bucket",
    "vllm:request_queue_time_seconds_bucket",
    "vllm:request_success_total",
    "vllm:cache_config_info",
}


@pytest.fixture(scope="module")
def node() -> Iterator[api_node.ApiNode]:
    with api_node.node() as running:
        yield running


def samples(text: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in parser.text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def test_names_and_labels(node: api_node.ApiNode) -> None:
    http_calls.post(node.url, "/v1/chat/completions", CHAT)
    found = samples(http_calls.get(node.url, "/metrics").raw.decode())
    assert set(found) >= NAMES
    for name in NAMES:
        assert all(dict(labels)["model_name"] == "small" for labels in found[name])
    assert {"drift_steps_total", "drift_forward_seconds_total", "drift_overhead_seconds_total"} <= set(found)
    assert not any(name.endswith("_created") for name in found)


PICKED_BY: dict[str, tuple[str, set[str]]] = {
    "vllm:num_requests_waiting": ("gauge", set()),
    "vllm:num_requests_running": ("gauge", set()),
    "vllm:kv_cache_usage_perc": ("gauge", set()),
    "vllm:cache_config_info": ("gauge", {"block_size", "num_gpu_blocks"}),
}
"""What the endpoint pickers of llm-d and of the Gateway API's inference extension read, but for adapters'."""


def test_endpoint_pickers_find_what_they_read(node: api_node.ApiNode) -> None:
    text = http_calls.get(node.url, "/metrics").raw.decode()
    families = {family.name: family for family in parser.text_string_to_metric_families(text)}
    for name, (kind, labels) in PICKED_BY.items():
        (sample,) = families[name].samples  # they take the newest of several, and time stamps we send none
        assert (families[name].type, sample.timestamp) == (kind, None)
        assert labels <= sample.labels.keys()
        assert all(sample.labels[label].isdigit() for label in labels)
    (usage,) = families["vllm:kv_cache_usage_perc"].samples
    assert 0 <= usage.value <= 1


def test_names_keep_their_colons_whatever_prometheus_likes_best(node: api_node.ApiNode) -> None:
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
    reply = http_calls.get(node.url, "/metrics", {"accept": accept})
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert set(samples(reply.raw.decode())) >= NAMES


def test_counts_are_those_of_the_answers(node: api_node.ApiNode) -> None:
    def totals() -> list[float]:
        names = ["vllm:prompt_tokens_total", "vllm:generation_tokens_total"]
        return [http_calls.metric(node.url, name) for name in names]

    before = totals()
    finished = http_calls.metric(node.url, "vllm:request_success_total", finished_reason="stop")
    usages = [http_calls.post(node.url, "/v1/chat/completions", CHAT).json["usage"] for _ in range(3)]
    stopped = {**CHAT, "stop": ["lazy"], "stream": False}
    usages.append(http_calls.post(node.url, "/v1/chat/completions", stopped).json["usage"])
    prompts = sum(usage["prompt_tokens"] for usage in usages)
    answers = sum(usage["completion_tokens"] for usage in usages)
    assert totals() == [before[0] + prompts, before[1] + answers]
    assert http_calls.metric(node.url, "vllm:request_success_total", finished_reason="stop") == finished + 4


def value(metrics: Metrics, name: str, **labels: str) -> float:
    found = samples(generate_latest(metrics.registry).decode()).get(name, {})
    return sum(each for key, each in found.items() if labels.items() <= dict(key).items())


def test_bucket_edges_lie_at_the_targets() -> None:
    metrics = Metrics("m", SloOptions(ttft_ms=123, tbt_ms=45))
    meter = Meter(metrics, arrival_s=10.0, prompt_tokens=5, slo=wire.Slo())
    meter.tokens(10.123, 1, 0, 0)
    meter.tokens(10.168, 1, 0, 0)
    assert value(metrics, "vllm:time_to_first_token_seconds_bucket", le="0.123") == 1
    assert value(metrics, "vllm:inter_token_latency_seconds_bucket", le="0.045") in (0, 1)
    assert value(metrics, "vllm:inter_token_latency_seconds_count") == 1
    assert value(metrics, "vllm:time_per_output_token_seconds_count") == 1


def attainment(metrics: Metrics) -> dict[str, float]:
    return {
        f"{slo}-{met}": value(metrics, "drift_slo_requests_total", slo=slo, met=met)
        for slo in ("ttft", "tbt")
        for met in ("true", "false")
    }


def run(
    gaps_s: list[float], slo: wire.Slo | None = None, end: str = "stop", per_token_ms: float = 0.0
) -> Metrics:
    """One request with these gaps; the first is its TTFT."""
    metrics = Metrics("m", SloOptions(ttft_ms=100, ttft_per_token_ms=per_token_ms, tbt_ms=50))
    meter = Meter(metrics, arrival_s=1.0, prompt_tokens=10, slo=slo or wire.Slo())
    now_s = 1.0
    for gap_s in gaps_s:
        now_s += gap_s
        meter.tokens(now_s, 1, 0, 0)
    meter.end(end, now_s)
    meter.end("cancelled", now_s)
    return metrics


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (run([0.09, 0.04, 0.04]), (1, 0, 1, 0)),
        (run([0.11, 0.04]), (0, 1, 1, 0)),
        (run([0.11, 0.04], per_token_ms=2.0), (1, 0, 1, 0)),
        (run([0.09, *[0.04] * 98, 0.06]), (1, 0, 0, 1)),
        (run([0.09, *[0.04] * 99, 0.06]), (1, 0, 1, 0)),
        (run([0.09]), (1, 0, 0, 0)),
        (run([0.09, 0.06], wire.Slo(ttft_ms=80, tbt_ms=70)), (0, 1, 1, 0)),
        (run([], end="cancelled"), (0, 0, 0, 0)),
        (run([], end="abort"), (0, 1, 0, 1)),
    ],
)
def test_attainment(metrics: Metrics, expected: tuple[int, int, int, int]) -> None:
    found = attainment(metrics)
    assert tuple(found.values()) == expected


def test_a_resumed_answer_had_its_first_token_elsewhere() -> None:
    metrics = Metrics("m", SloOptions(ttft_ms=100, tbt_ms=50))
    meter = Meter(metrics, arrival_s=1.0, prompt_tokens=10, slo=wire.Slo(), resumed=True)
    meter.tokens(1.3, 1, 0, 0.0)
    meter.end("stop", 1.3)
    assert attainment(metrics) == {"ttft-true": 0, "ttft-false": 0, "tbt-true": 0, "tbt-false": 1}
    assert value(metrics, "vllm:inter_token_latency_seconds_sum") == pytest.approx(0.3)
    assert value(metrics, "vllm:prompt_tokens_total") == 0


def test_the_queue_time_counts_once() -> None:
    metrics = Metrics("m", SloOptions())
    meter = Meter(metrics, arrival_s=0.0, prompt_tokens=1, slo=wire.Slo())
    meter.tokens(0.7, 1, 0, 0.3)
    meter.tokens(0.8, 1, 0, 0.0)
    assert value(metrics, "vllm:request_queue_time_seconds_sum") == pytest.approx(0.3)
    assert value(metrics, "vllm:request_queue_time_seconds_count") == 1


def test_tokens_of_one_output_share_their_gap() -> None:
    metrics = Metrics("m", SloOptions())
    meter = Meter(metrics, arrival_s=0.0, prompt_tokens=1, slo=wire.Slo())
    meter.tokens(0.1, 1, 0, 0)
    meter.tokens(0.3, 2, 0, 0)
    assert value(metrics, "vllm:inter_token_latency_seconds_count") == 2
    assert value(metrics, "vllm:inter_token_latency_seconds_bucket", le="0.1") == 2
    assert metrics.tbt_ms(0.5) == pytest.approx(100)
    assert value(metrics, "vllm:generation_tokens_total") == 3
