"""One request, from its client through a router's process and a node's two, as a collector sees it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import http_calls
import otlp_receiver
import real_node
import router_process
from drift_engine.tracing.options import TracingOptions
from otlp_receiver import Receiver, Seen

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
SECRET = "nobody but the model may read this"
PROMPT_TOKENS, ANSWER_TOKENS = 1500, 12
WITHIN_NS = 1_000_000
"""Of two processes' clocks, which are read one after the other."""


@pytest.fixture(scope="module")
def _soon() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        otlp_receiver.soon(patch)
        yield


@pytest.fixture(scope="module")
def receiver(_soon: None) -> Iterator[Receiver]:
    with otlp_receiver.receiving() as found:
        yield found


@pytest.fixture(scope="module")
def node(
    receiver: Receiver, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[real_node.RealNode]:
    folder = tmp_path_factory.mktemp("node")
    asked = {"endpoint": receiver.url, "service": "demo-node"}
    with real_node.started(folder, model, device="sim", mode="mux", tracing=asked) as started:
        yield started
        started.signal()
        assert started.ended() == 0
        assert "Traceback" not in started.stderr()


@pytest.fixture(scope="module")
def router(receiver: Receiver, node: real_node.RealNode) -> Iterator[router_process.RouterProcess]:
    tracing = TracingOptions(receiver.url, service="demo-router")
    address = f"{node.url},{node.control_url}"
    with router_process.router(address, token=real_node.TOKEN, tracing=tracing, workers=2) as process:
        real_node.until(lambda: http_calls.get(process.url, "/readyz").status == 200, "the router")
        yield process
        assert process.stop() == 0


@pytest.fixture
def collector(receiver: Receiver) -> Receiver:
    receiver.clear()
    return receiver


def traced(collector: Receiver) -> list[Seen]:
    """All spans of the one request, once both processes have told theirs."""
    collector.wait_served("demo-router", "demo-node")
    return list(collector.spans)


def prompt(number: int) -> list[int]:
    """Token ids of which no two begin alike."""
    return [10 + (number + at * at) % 200 for at in range(PROMPT_TOKENS)]


def inside(span: Seen, other: Seen) -> bool:
    return span.start_ns - WITHIN_NS <= other.start_ns and other.end_ns <= span.end_ns + WITHIN_NS


def test_a_request_is_one_trace_from_its_client_to_the_blocks_of_its_prompt(
    collector: Receiver, router: router_process.RouterProcess, node: real_node.RealNode
) -> None:
    body = node.completion(prompt(1), max_tokens=ANSWER_TOKENS)
    reply = http_calls.post(router.url, COMPLETIONS, body, SAMPLED)
    assert reply.status == 200
    spans = traced(collector)
    assert {span.trace_id for span in spans} == {TRACE}
    asked = collector.one(f"POST {COMPLETIONS}", "demo-node")
    root, attempt = sorted(collector.named(f"POST {COMPLETIONS}", "demo-router"), key=lambda one: one.kind)[
        ::-1
    ]
    assert (root.kind, root.parent_id) == ("server", PARENT)
    assert (attempt.kind, attempt.parent_id) == ("client", root.span_id)
    assert (asked.kind, asked.parent_id) == ("server", attempt.span_id)
    read, queue, prefill, decode = (
        collector.one(name) for name in ("read request", "queue", "prefill", "decode")
    )
    blocks = collector.named("prefill block")
    assert {span.parent_id for span in (read, queue, prefill, decode)} == {asked.span_id}
    assert blocks
    assert {block.parent_id for block in blocks} == {prefill.span_id}

    assert inside(root, attempt)
    # Its end is the node's own business: the answer is out before.
    assert attempt.start_ns - WITHIN_NS <= asked.start_ns <= attempt.end_ns
    assert all(asked.holds(span) for span in (read, queue, prefill, decode))
    assert all(prefill.holds(block) for block in blocks)
    assert read.end_ns == queue.start_ns
    assert queue.end_ns == prefill.start_ns
    assert prefill.end_ns == decode.start_ns

    told = asked.attributes
    assert told["gen_ai.request.model"] == node.model
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (
        PROMPT_TOKENS,
        ANSWER_TOKENS,
    )
    assert told["gen_ai.response.finish_reasons"] == ["length"]
    assert sum(block.attributes["drift.block.tokens"] for block in blocks) == PROMPT_TOKENS
    assert prefill.attributes["drift.prefill.tokens"] == PROMPT_TOKENS
    assert decode.attributes["drift.decode.tokens"] == ANSWER_TOKENS - 1
    (first,) = asked.events
    assert (first[0], first[1]) == ("first token", prefill.end_ns)
    ttft_ns = told["gen_ai.latency.time_to_first_token"] * 1e9
    assert ttft_ns == pytest.approx(prefill.end_ns - asked.start_ns, abs=1000)


def test_what_is_cached_is_not_computed(
    collector: Receiver, router: router_process.RouterProcess, node: real_node.RealNode
) -> None:
    twice = prompt(2)
    http_calls.post(router.url, COMPLETIONS, node.completion(twice), SAMPLED)
    traced(collector)
    collector.clear()
    http_calls.post(router.url, COMPLETIONS, node.completion(twice), SAMPLED)
    traced(collector)
    cached = collector.one("prefill").attributes["drift.prefill.cached_tokens"]
    assert cached >= PROMPT_TOKENS - 2 * real_node.PAGE_TOKENS
    assert collector.one("prefill").attributes["drift.prefill.tokens"] == PROMPT_TOKENS - cached
    asked = collector.one(f"POST {COMPLETIONS}", "demo-node")
    assert asked.attributes["gen_ai.usage.cache_read.input_tokens"] == cached


def test_several_answers_are_told_apart(
    collector: Receiver, router: router_process.RouterProcess, node: real_node.RealNode
) -> None:
    http_calls.post(router.url, COMPLETIONS, node.completion([5, 6, 7, 8], n=3), SAMPLED)
    traced(collector)
    assert sorted(span.attributes["drift.choice"] for span in collector.named("decode")) == [0, 1, 2]


def test_nothing_of_what_is_asked_or_answered_is_in_spans(
    collector: Receiver, router: router_process.RouterProcess, node: real_node.RealNode
) -> None:
    body = {
        "model": node.model,
        "messages": [{"role": "user", "content": SECRET}],
        "max_tokens": 16,
        "ignore_eos": True,
    }
    reply = http_calls.post(router.url, CHAT, body, SAMPLED)
    answer = reply.json["choices"][0]["message"]["content"].encode()
    content = b"".join(span.content for span in traced(collector))
    assert SECRET.encode() not in content
    assert answer
    assert answer not in content


def test_a_client_that_does_not_want_to_be_traced_is_not_and_the_next_one_is(
    collector: Receiver, router: router_process.RouterProcess, node: real_node.RealNode
) -> None:
    unsampled = {"traceparent": f"00-{'1' * 32}-{PARENT}-00"}
    assert http_calls.post(router.url, COMPLETIONS, node.completion(), unsampled).status == 200
    assert http_calls.post(router.url, COMPLETIONS, node.completion(), SAMPLED).status == 200
    assert {span.trace_id for span in traced(collector)} == {TRACE}


def test_a_trace_context_that_can_not_be_read_is_none(
    collector: Receiver, router: router_process.RouterProcess, node: real_node.RealNode
) -> None:
    reply = http_calls.post(
        router.url, COMPLETIONS, node.completion(), {"traceparent": f"00-{TRACE}-short-01"}
    )
    assert reply.status == 200
    spans = traced(collector)
    (root,) = [span for span in spans if not span.parent_id]
    assert root.service == "demo-router"
    assert {span.trace_id for span in spans} == {root.trace_id}
    assert root.trace_id != TRACE


def test_a_stream_is_told_like_an_answer_in_one_piece(
    collector: Receiver, router: router_process.RouterProcess, node: real_node.RealNode
) -> None:
    body = node.completion(prompt(3), max_tokens=ANSWER_TOKENS, stream=True)
    assert http_calls.post(router.url, COMPLETIONS, body, SAMPLED).status == 200
    traced(collector)
    asked = collector.one(f"POST {COMPLETIONS}", "demo-node")
    assert asked.attributes["gen_ai.request.stream"] is True
    assert asked.attributes["gen_ai.usage.output_tokens"] == ANSWER_TOKENS
    root = next(
        span for span in collector.named(f"POST {COMPLETIONS}", "demo-router") if span.kind == "server"
    )
    assert root.attributes["gen_ai.usage.output_tokens"] == ANSWER_TOKENS


def test_a_request_that_a_node_refuses_is_told_with_its_status(
    collector: Receiver, router: router_process.RouterProcess, node: real_node.RealNode
) -> None:
    reply = http_calls.post(router.url, COMPLETIONS, node.completion(temperature=7), SAMPLED)
    assert reply.status == 400
    traced(collector)
    statuses = {span.attributes["http.response.status_code"] for span in collector.spans}
    assert statuses == {400}
    assert [span.kind for span in collector.spans if span.error] == ["client"]


def test_what_became_of_spans_is_in_the_metrics_of_both(
    collector: Receiver, router: router_process.RouterProcess, node: real_node.RealNode
) -> None:
    http_calls.post(router.url, COMPLETIONS, node.completion(), SAMPLED)
    traced(collector)
    node_s, router_s = "drift_trace_spans_total", "drift_router_trace_spans_total"
    real_node.until(lambda: exported(node.url, node_s) > 0, "the node's count")
    real_node.until(lambda: exported(router.admin_url, router_s) > 0, "the router's count")


def exported(url: str, metric: str) -> float:
    """As the metrics say."""
    line = f'{metric}{{outcome="exported"}} '
    lines = http_calls.get(url, "/metrics").raw.decode().splitlines()
    (count,) = [float(one.removeprefix(line)) for one in lines if one.startswith(line)]
    return count


@pytest.mark.usefixtures("_soon")
def test_a_node_whose_collector_hangs_serves_and_stops(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "600")
    with otlp_receiver.receiving(None) as hanging, contextlib.ExitStack() as stack:
        asked = {"endpoint": hanging.url}
        node = stack.enter_context(real_node.started(tmp_path, model, device="sim", tracing=asked))
        for _ in range(5):
            assert node.post(COMPLETIONS, node.completion(), **SAMPLED).status == 200
        real_node.until(lambda: hanging.asked > 0, "the collector to be asked")
        node.signal()
        assert node.ended() == 0
