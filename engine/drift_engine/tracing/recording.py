"""Spans that are begun and ended while a request goes its way, and the trace context that goes with it (W3C).

A span's time is told by the wall clock, once, at its beginning; how long things took is by the monotonic clock, which
nobody sets.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from drift_engine.tracing.exporting import Exporting
from drift_engine.tracing.spans import Attributes, Event, Span

Headers = Iterable[tuple[bytes, bytes]]

PARENT, STATE = b"traceparent", b"tracestate"

_CONTEXT = TraceContextTextMapPropagator()


class Recorder:
    """One process' spans."""

    def __init__(self, exporting: Exporting, counts: dict[str, int]) -> None:
        self.counts = counts
        """What became of them, by `spans.Outcome`."""
        self._exporting = exporting
        self._tracer = exporting.tracer

    def serve(self, name: str, at_s: float, headers: Headers, attributes: Attributes) -> OpenSpan:
        """Of a request whose client may have a trace. Names of headers are in lower case."""
        offset_ns = time.time_ns() - time.monotonic_ns()
        span = self._tracer.start_span(
            name, _parent(headers), SpanKind.SERVER, attributes, start_time=offset_ns + _ns(at_s)
        )
        return OpenSpan(self._tracer, span, offset_ns)

    async def stop(self) -> None:
        await self._exporting.stop()


class OpenSpan:
    """Of which others may be children already. Times are monotonic seconds."""

    __slots__ = ("_offset_ns", "_span", "_tracer", "recorded")

    def __init__(self, tracer: trace.Tracer, span: trace.Span, offset_ns: int) -> None:
        self._tracer = tracer
        self._span = span
        self._offset_ns = offset_ns
        self.recorded = span.is_recording()
        """False: it was not chosen, and whoever is told of it must not choose otherwise."""

    def call(self, name: str, at_s: float, attributes: Attributes) -> OpenSpan:
        """A child that another process is asked within."""
        span = self._tracer.start_span(
            name, self._within, SpanKind.CLIENT, attributes, start_time=self._offset_ns + _ns(at_s)
        )
        return OpenSpan(self._tracer, span, self._offset_ns)

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """For whoever is asked within it."""
        carrier: dict[str, str] = {}
        _CONTEXT.inject(carrier, self._within)
        return [(name.encode(), value.encode("latin-1")) for name, value in carrier.items()]

    def event(self, event: Event) -> None:
        self._span.add_event(event.name, event.attributes, self._offset_ns + _ns(event.at_s))

    def end(
        self, at_s: float, attributes: Attributes, children: Sequence[Span] = (), error: str | None = None
    ) -> None:
        """`error`: why it failed, in one word."""
        self._span.set_attributes(dict(attributes))
        if error is not None:
            self._span.set_attribute("error.type", error)
            self._span.set_status(Status(StatusCode.ERROR, error))
        for child in children:
            self._add(child, self._within)
        self._span.end(self._offset_ns + _ns(at_s))

    @property
    def _within(self) -> Context:
        return trace.set_span_in_context(self._span, Context())

    def _add(self, made: Span, parent: Context) -> None:
        span = self._tracer.start_span(
            made.name, parent, attributes=made.attributes, start_time=self._offset_ns + _ns(made.start_s)
        )
        for event in made.events:
            span.add_event(event.name, event.attributes, self._offset_ns + _ns(event.at_s))
        if made.children:
            within = trace.set_span_in_context(span, Context())
            for child in made.children:
                self._add(child, within)
        span.end(self._offset_ns + _ns(made.end_s))


def _parent(headers: Headers) -> Context:
    """What can't be read, or came twice, is no trace."""
    parents: list[str] = []
    states: list[str] = []
    for name, value in headers:
        if name == PARENT:
            parents.append(value.decode("latin-1"))
        elif name == STATE:
            states.append(value.decode("latin-1"))
    if len(parents) != 1:
        return Context()
    return _CONTEXT.extract({PARENT.decode(): parents, STATE.decode(): states}, Context())


def _ns(at_s: float) -> int:
    return int(at_s * 1e9)
