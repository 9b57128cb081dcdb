"""The line of spans before a collector: it is bounded, what becomes of each is counted, and it ends in time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

import otlp_receiver
from drift_engine.tracing import starting
from drift_engine.tracing.exporting import LAST_SPANS, Line
from drift_engine.tracing.options import TracingOptions
from drift_engine.tracing.recording import Recorder
from drift_engine.tracing.spans import Event, Outcome, Span

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = [(b"traceparent", f"00-{TRACE}-{PARENT}-01".encode())]
UNSAMPLED = [(b"traceparent", f"00-{TRACE}-{PARENT}-00".encode())]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    otlp_receiver.soon(monkeypatch)
    yield
    # The exporter draws its pauses from the global `random`, which other tests must find untouched.
    for thread in threading.enumerate():
        if thread.name == LAST_SPANS:
            thread.join(60)
            assert not thread.is_alive()


@pytest.fixture
def collector() -> Iterator[otlp_receiver.Receiver]:
    with otlp_receiver.receiving() as found:
        yield found


def started(url: str, sampling: float | None = None) -> Recorder:
    recorder = starting.start(TracingOptions(url, sampling), "test")
    assert recorder is not None
    return recorder


def serve(recorder: Recorder, headers: list[tuple[bytes, bytes]], children: Sequence[Span] = ()) -> None:
    now_s = time.monotonic()
    recorder.serve("POST /", now_s, headers, {"told": "first"}).end(now_s + 1.0, {"told": "last"}, children)


def test_a_span_is_what_was_told_of_it(collector: otlp_receiver.Receiver) -> None:
    recorder = started(collector.url)
    now_s, wall_ns = time.monotonic(), time.time_ns()
    span = recorder.serve("POST /", now_s, SAMPLED, {"told": 1})
    span.event(Event("half", now_s + 1.0, {"way": True}))
    inner = Span("inner", now_s + 0.5, now_s + 0.75, {"words": ["a", "b"]}, [Event("there", now_s + 0.6)])
    span.end(now_s + 2.0, {"ended": 0.5}, [Span("outer", now_s, now_s + 1.0, children=[inner])], error="503")
    asyncio.run(recorder.stop())
    root, outer, found = (collector.one(name) for name in ("POST /", "outer", "inner"))
    assert (root.trace_id, root.parent_id, root.kind) == (TRACE, PARENT, "server")
    assert (outer.parent_id, found.parent_id) == (root.span_id, outer.span_id)
    assert root.end_ns - root.start_ns == pytest.approx(2e9, abs=1000)
    assert found.start_ns - root.start_ns == pytest.approx(0.5e9, abs=1000)
    assert root.start_ns == pytest.approx(wall_ns, abs=1e9)
    assert root.attributes == {"told": 1, "ended": 0.5, "error.type": "503"}
    assert root.error
    assert [(name, told) for name, _, told in root.events] == [("half", {"way": True})]
    assert found.attributes == {"words": ["a", "b"]}


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"traceparent", b"00-zz-zz-01")],
        [(b"traceparent", f"00-{'0' * 32}-{PARENT}-01".encode())],
        [(b"traceparent", f"ff-{TRACE}-{PARENT}-01".encode())],
        [(b"traceparent", b"\xff" * 4000)],
        SAMPLED * 2,
    ],
)
def test_what_is_no_trace_context_begins_a_trace(
    collector: otlp_receiver.Receiver, headers: list[tuple[bytes, bytes]]
) -> None:
    recorder = started(collector.url)
    serve(recorder, headers)
    asyncio.run(recorder.stop())
    (found,) = collector.spans
    assert found.parent_id == ""
    assert found.trace_id != TRACE


def test_whoever_is_asked_is_shown_the_span_that_asks(collector: otlp_receiver.Receiver) -> None:
    recorder = started(collector.url)
    span = recorder.serve("POST /", 0.0, [*SAMPLED, (b"tracestate", b"vendor=thing")], {})
    call = span.call("POST /", 1.0, {})
    shown = dict(call.headers)
    call.end(2.0, {})
    span.end(3.0, {})
    asyncio.run(recorder.stop())
    asking = next(one for one in collector.spans if one.kind == "client")
    assert shown == {
        b"traceparent": f"00-{TRACE}-{asking.span_id}-01".encode(),
        b"tracestate": b"vendor=thing",
    }


def test_a_client_that_does_not_want_to_be_traced_is_not(collector: otlp_receiver.Receiver) -> None:
    recorder = started(collector.url)
    span = recorder.serve("POST /", 0.0, UNSAMPLED, {})
    assert not span.recorded
    ((_, shown),) = span.headers
    assert shown.startswith(f"00-{TRACE}-".encode())
    assert shown.endswith(b"-00")
    span.end(1.0, {}, [Span("inner", 0.0, 1.0)])
    asyncio.run(recorder.stop())
    assert collector.spans == ()


def test_a_sample_is_of_those_who_do_not_say(collector: otlp_receiver.Receiver) -> None:
    recorder = started(collector.url, sampling=0.0)
    serve(recorder, [])
    serve(recorder, SAMPLED)
    asyncio.run(recorder.stop())
    assert [found.trace_id for found in collector.spans] == [TRACE]


def test_spans_that_a_collector_refuses_are_counted(collector: otlp_receiver.Receiver) -> None:
    collector.status = 400
    recorder = started(collector.url)
    serve(recorder, [], [Span("inner", 0.0, 1.0)])
    asyncio.run(recorder.stop())
    assert recorder.counts == {Outcome.EXPORTED: 0, Outcome.DROPPED: 0, Outcome.FAILED: 2}


def test_the_end_does_not_wait_for_a_collector_that_hangs(
    collector: otlp_receiver.Receiver, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")
    collector.status = None
    recorder = started(collector.url)
    serve(recorder, [])

    async def stopped() -> None:
        async with asyncio.timeout(40):  # less than the exporter's own deadline
            await recorder.stop()

    asyncio.run(stopped())
    assert [record.getMessage() for record in caplog.records] == ["spans were left at the end"]
    collector.status = 400  # for good, so that it is not asked again


class Blocked(SpanExporter):
    """Takes nothing until it may."""

    def __init__(self, counts: dict[str, int]) -> None:
        self.may = threading.Event()
        self.counts = counts

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.may.wait(60)
        self.counts[Outcome.EXPORTED] += len(spans)
        return SpanExportResult.SUCCESS


def test_of_more_spans_than_may_wait_the_last_are_dropped_and_counted() -> None:
    counts = starting.fresh_counts()
    exporter = Blocked(counts)
    provider = TracerProvider(shutdown_on_exit=False)
    line = Line(exporter, counts, most=10)
    provider.add_span_processor(line)
    for _ in range(25):
        provider.get_tracer("test").start_span("one").end()
    assert (line.waiting, counts[Outcome.DROPPED]) == (10, 15)
    exporter.may.set()
    provider.shutdown()
    assert counts == {Outcome.EXPORTED: 10, Outcome.DROPPED: 15, Outcome.FAILED: 0}
