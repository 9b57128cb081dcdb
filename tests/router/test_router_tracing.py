"""What a router tells of requests: to a collector, and to the nodes that it asks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

import otlp_receiver
from drift_engine.tracing.options import TracingOptions
from drift_engine.tracing.spans import Outcome
from drift_router import metrics
from otlp_receiver import Receiver, Seen
from running_router import PATIENT, ask, chat, routing, run
from scripted_node import ScriptedNode, answer, drop, hang, said, stream
from waiting import until

ANSWER = b'{"id":"chatcmpl-1","choices":[]}'
NAME = "POST /v1/chat/completions"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADERS = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=thing"}
SECRET = "nobody but the model may read this"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    otlp_receiver.soon(monkeypatch)


@pytest.fixture
def collector() -> Iterator[Receiver]:
    with otlp_receiver.receiving() as found:
        yield found


def told(
    receiver: Receiver, node: ScriptedNode, *others: ScriptedNode, **asked: Any
) -> tuple[Seen, list[Seen]]:
    """The router's span of one request and those of its attempts."""
    headers = asked.pop("headers", {})

    async def test() -> None:
        options = TracingOptions(receiver.url)
        async with routing(node, *others, policy="round-robin", tracing=options) as router:
            await ask(router, chat(SECRET, headers=headers, **asked))

    run(test())
    (root,) = [span for span in receiver.spans if span.kind == "server"]
    attempts = sorted(
        (span for span in receiver.spans if span.kind == "client"), key=lambda span: span.start_ns
    )
    assert {span.name for span in receiver.spans} == {NAME}
    assert {span.trace_id for span in receiver.spans} == {root.trace_id}
    assert {span.parent_id for span in attempts} <= {root.span_id}
    assert all(root.holds(attempt) for attempt in attempts)
    return root, attempts


def events(span: Seen) -> list[tuple[str, dict[str, Any]]]:
    return [(name, attributes) for name, _, attributes in span.events]


def test_a_request_is_a_span_and_the_node_that_it_went_to_another(collector: Receiver) -> None:
    node = ScriptedNode("a", stream(words=5), ours=True)
    root, (attempt,) = told(collector, node, headers=HEADERS, stream=True)
    assert (root.service, root.trace_id, root.parent_id) == ("drift-router", TRACE, PARENT)
    assert (
        root.attributes
        | {
            "http.request.method": "POST",
            "http.route": "/v1/chat/completions",
            "http.response.status_code": 200,
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "drift-tiny",
            "gen_ai.usage.output_tokens": 5,
            "drift.outcome": "done",
            "drift.node": "node-0",
            "drift.attempts": 1,
        }
        == root.attributes
    )
    assert (
        attempt.attributes
        | {
            "http.response.status_code": 200,
            "http.request.resend_count": 0,
            "server.address": "127.0.0.1",
            "server.port": node.port,
            "drift.node": "node-0",
            "drift.route.reason": "turn",
            "drift.route.hit_tokens": 0,
        }
        == attempt.attributes
    )
    assert attempt.attributes["drift.route.uncached_tokens"] > 0
    assert [name for name, _ in events(attempt)] == ["first byte"]
    assert not root.error


def test_the_node_is_shown_the_attempt_and_the_client_s_other_headers(collector: Receiver) -> None:
    node = ScriptedNode("a", answer(ANSWER))
    _, (attempt,) = told(collector, node, headers={**HEADERS, "baggage": "own=thing"})
    (received,) = node.generations
    assert received.headers["traceparent"] == f"00-{TRACE}-{attempt.span_id}-01"
    assert received.headers["tracestate"] == "vendor=thing"
    assert received.headers["baggage"] == "own=thing"


def test_nothing_of_what_is_asked_or_answered_is_in_spans(collector: Receiver) -> None:
    told(collector, ScriptedNode("a", stream(words=5), ours=True), stream=True)
    content = b"".join(span.content for span in collector.spans)
    assert SECRET.encode() not in content
    assert b"w0" not in content


def test_a_node_that_fails_and_the_one_that_does_not_are_two_attempts(collector: Receiver) -> None:
    nodes = [ScriptedNode("a", drop), ScriptedNode("b", answer(ANSWER))]
    root, attempts = told(collector, *nodes)
    while len(attempts) == 1:  # the turn was the other's
        collector.clear()
        root, attempts = told(collector, *nodes)
    first, second = attempts
    assert first.error
    assert first.attributes["error.type"] == "reset"
    assert not second.error
    assert second.attributes["http.request.resend_count"] == 1
    ((name, event),) = events(root)
    assert (name, event["drift.loss"]) == ("drift.retry", "reset")
    assert root.attributes["drift.attempts"] == 2


def test_a_stream_that_goes_on_elsewhere_is_one_trace(collector: Receiver) -> None:
    async def test() -> None:
        nodes = [ScriptedNode(name, stream(words=8), ours=True) for name in "ab"]
        async with routing(*nodes, policy="round-robin", tracing=TracingOptions(collector.url)) as router:
            nodes[0].behave = nodes[1].behave = stream(words=8, break_after=3)

            def mended(node: ScriptedNode) -> None:
                node.behave = stream(words=8)

            asking = asyncio.ensure_future(ask(router, chat(stream=True)))
            await until(lambda: any(node.generations for node in nodes))
            mended(next(node for node in nodes if not node.generations))
            assert said((await asking).body) == " ".join(f"w{word}" for word in range(8)) + " "

    run(test())
    (root,) = [span for span in collector.spans if span.kind == "server"]
    ((name, event),) = events(root)
    assert name == "drift.resume"
    assert (event["drift.loss"], event["drift.seen_tokens"]) == ("broken", 3)
    assert root.attributes["gen_ai.usage.output_tokens"] == 8


def test_a_request_that_is_not_chosen_is_told_on_as_not_chosen(collector: Receiver) -> None:
    async def test() -> None:
        node = ScriptedNode("a", answer(ANSWER))
        async with routing(node, tracing=TracingOptions(collector.url)) as router:
            await ask(router, chat(headers={"traceparent": f"00-{TRACE}-{PARENT}-00"}))
        (received,) = node.generations
        assert received.headers["traceparent"].startswith(f"00-{TRACE}-")
        assert received.headers["traceparent"].endswith("-00")

    run(test())
    assert collector.spans == ()


def test_where_no_node_is_left_the_error_is_the_request_s(collector: Receiver) -> None:
    root, _ = told(collector, ScriptedNode("a", drop), headers=HEADERS)
    assert root.error
    assert root.attributes["http.response.status_code"] == 502
    assert root.attributes["drift.outcome"] == "refused"


def test_a_client_that_leaves_ends_its_trace(collector: Receiver) -> None:
    async def test() -> None:
        node = ScriptedNode("a", hang)
        async with routing(node, tracing=TracingOptions(collector.url)) as router:
            asking = asyncio.ensure_future(ask(router, chat(headers=HEADERS)))
            await until(lambda: bool(node.generations))
            asking.cancel()
            await asyncio.wait([asking])
            await until(lambda: not router.counters.in_flight)

    run(test())
    (root,) = [span for span in collector.spans if span.kind == "server"]
    assert root.attributes["drift.outcome"] == "cancelled"
    assert "http.response.status_code" not in root.attributes


def test_questions_that_generate_nothing_have_no_spans(collector: Receiver) -> None:
    async def test() -> None:
        node = ScriptedNode("a", answer(b'{"count":1}'))
        async with routing(node, tracing=TracingOptions(collector.url)) as router:
            await ask(router, chat(path="/tokenize", headers=HEADERS))
        assert node.generations[0].headers["traceparent"] == HEADERS["traceparent"]

    run(test())
    assert collector.spans == ()


def test_without_tracing_a_client_s_trace_passes_untouched() -> None:
    async def test() -> None:
        node = ScriptedNode("a", answer(ANSWER))
        sent = {**HEADERS, "traceparent": "what nobody understands", "baggage": "own=thing"}
        async with routing(node) as router:
            await ask(router, chat(headers=sent))
        (received,) = node.generations
        assert {name: received.headers[name] for name in sent} == sent

    run(test())


@pytest.mark.parametrize("status", [503, None])
def test_a_collector_that_fails_or_hangs_is_no_request_s_trouble(
    collector: Receiver, status: int | None
) -> None:
    collector.status = status

    async def test() -> None:
        node = ScriptedNode("a", answer(ANSWER))
        async with routing(node, patience=PATIENT, tracing=TracingOptions(collector.url)) as router:
            for _ in range(20):
                assert (await ask(router, chat())).status == 200

    run(test())


def test_what_became_of_spans_is_in_the_metrics(collector: Receiver) -> None:
    async def test() -> None:
        node = ScriptedNode("a", answer(ANSWER))
        async with routing(node, tracing=TracingOptions(collector.url)) as router:
            await ask(router, chat())
            await until(lambda: router.counters.trace_spans[Outcome.EXPORTED] == 2)
            lines = metrics.render(router.seen()).decode().splitlines()
            assert 'drift_router_trace_spans_total{outcome="exported"} 2.0' in lines
            assert 'drift_router_trace_spans_total{outcome="dropped"} 0.0' in lines

    run(test())
