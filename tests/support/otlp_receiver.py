"""An OTLP/HTTP receiver: what a collector is sent, as plain spans; and one that is slow, or that refuses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from background_loop import BackgroundLoop

DEADLINE_S = 60.0
KINDS = {
    Span.SPAN_KIND_SERVER: "server",
    Span.SPAN_KIND_CLIENT: "client",
    Span.SPAN_KIND_INTERNAL: "internal",
}


@dataclass(frozen=True)
class Seen:
    """One span. Times in nanoseconds."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    events: list[tuple[str, int, dict[str, Any]]]
    error: bool
    content: bytes
    """As it came."""

    def holds(self, other: Seen) -> bool:
        """In time."""
        return self.start_ns <= other.start_ns <= other.end_ns <= self.end_ns


@dataclass
class Receiver:
    """`status`: what it answers; None: nothing."""

    status: int | None = 200
    url: str = ""
    asked: int = 0
    _spans: list[Seen] = field(default_factory=list)
    _waiting: list[asyncio.Event] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        self.asked += 1
        body = await request.read()
        if self.status is None:
            hung = asyncio.Event()
            self._waiting.append(hung)
            await hung.wait()
        if self.status == 200:
            self._spans += _seen(ExportTraceServiceRequest.FromString(body))
        # What hung is refused in the end, and not tried again: no thread of a test's outlives it.
        return web.Response(status=self.status or 400)

    async def let_go(self) -> None:
        for hung in self._waiting:
            hung.set()

    @property
    def spans(self) -> Sequence[Seen]:
        return tuple(self._spans)

    def wait_served(self, *services: str) -> None:
        """Until each of them has told a request of its clients', which is the last that it tells of one."""
        end_s = time.monotonic() + DEADLINE_S
        while {span.service for span in self.spans if span.kind == "server"} < set(services):
            assert time.monotonic() < end_s, [(span.service, span.name) for span in self._spans]
            time.sleep(0.02)

    def clear(self) -> None:
        self._spans.clear()

    def one(self, name: str, service: str | None = None) -> Seen:
        (found,) = self.named(name, service)
        return found

    def named(self, name: str, service: str | None = None) -> list[Seen]:
        """In the order in which they began."""
        found = [span for span in self.spans if span.name == name and service in (None, span.service)]
        return sorted(found, key=lambda span: span.start_ns)


@contextmanager
def receiving(status: int | None = 200) -> Iterator[Receiver]:
    receiver = Receiver(status)
    with BackgroundLoop("otlp-receiver") as background:
        app = web.Application()
        app.router.add_post("/v1/traces", receiver.take)
        runner = web.AppRunner(app, shutdown_timeout=0.1)

        async def start() -> int:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            return int(runner.addresses[0][1])

        receiver.url = f"http://127.0.0.1:{background.run(start())}"
        try:
            yield receiver
        finally:
            background.run(receiver.let_go())
            background.run(runner.cleanup())


def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes from now on send their spans at once, or soon give them up, whatever this machine says."""
    for name in ("ENDPOINT", "TRACES_ENDPOINT", "PROTOCOL", "HEADERS"):
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name}", raising=False)
    for name in (
        "SDK_DISABLED",
        "TRACES_SAMPLER",
        "TRACES_SAMPLER_ARG",
        "SERVICE_NAME",
        "RESOURCE_ATTRIBUTES",
    ):
        monkeypatch.delenv(f"OTEL_{name}", raising=False)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")  # shorter than the end's patience


def _seen(request: ExportTraceServiceRequest) -> Iterator[Seen]:
    for resource in request.resource_spans:
        service = str(_plain(resource.resource.attributes)["service.name"])
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Seen(
                    service,
                    span.name,
                    KINDS[span.kind],
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    _plain(span.attributes),
                    [(event.name, event.time_unix_nano, _plain(event.attributes)) for event in span.events],
                    span.status.code == span.status.STATUS_CODE_ERROR,
                    span.SerializeToString(),
                )


def _plain(pairs: Sequence[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind or "string_value")
