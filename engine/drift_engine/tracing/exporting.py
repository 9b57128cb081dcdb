"""Spans to a collector: a bounded line of them, a thread that sends it, and a count of what became of each.

The collector's slowness and absence are nobody's business but this module's: a span for which there is no room in the
line is dropped, a batch that is not taken is given up, and both are counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Mapping, Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_BSP_MAX_QUEUE_SIZE
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Tracer

from drift_engine.tracing.options import Wanted
from drift_engine.tracing.spans import Outcome
from drift_engine.version import drift_version

log = logging.getLogger(__name__)

QUEUE_SPANS = 2048
"""The specification's default, for OTEL_BSP_MAX_QUEUE_SIZE: some 6 MB."""

BATCH_SPANS = 128
"""A batch is encoded in one go, beside requests that want the same processor. The specification's 512 take four times
as long."""

FLUSH_S = 2.0
"""For the line to be sent at the end."""

LAST_SPANS = "last-spans"
"""Name of the thread that sends them, which may take longer."""


class Exporting:
    """Owner of the line and its thread."""

    def __init__(self, wanted: Wanted, attributes: Mapping[str, str], counts: dict[str, int]) -> None:
        """`attributes` are the process' own, where the environment does not say otherwise. `counts`: by Outcome; the
        thread writes there.
        """
        # Ours says once what theirs would say of every batch.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        sampler = None if wanted.sampling is None else ParentBased(TraceIdRatioBased(wanted.sampling))
        own = {"service.name": wanted.service} if wanted.service else {}
        told = OTELResourceDetector().detect().attributes
        self._provider = TracerProvider(
            sampler, Resource.create({**attributes, **told, **own}), shutdown_on_exit=False
        )
        self._line = Line(_Counted(OTLPSpanExporter(wanted.url), wanted.url, counts), counts, _queue_spans())
        self._provider.add_span_processor(self._line)

    @property
    def tracer(self) -> Tracer:
        return self._provider.get_tracer("drift", drift_version())

    async def stop(self, timeout_s: float = FLUSH_S) -> None:
        """Sends what is in the line, for no longer than that."""
        loop, over = asyncio.get_running_loop(), asyncio.Event()

        def send() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
                loop.call_soon_threadsafe(over.set)

        # A daemon: a collector that hangs must not keep the process.
        threading.Thread(target=send, name=LAST_SPANS, daemon=True).start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await over.wait()
        if self._line.waiting:
            log.warning("spans were left at the end", extra={"spans": self._line.waiting})


class Line(SpanProcessor):
    """What waits for the exporter, of which there are no more than so many."""

    def __init__(self, exporter: SpanExporter, counts: dict[str, int], most: int) -> None:
        self._counts = counts
        self._most = most
        self._taken = 0
        self._batches = BatchSpanProcessor(
            exporter, max_queue_size=most, max_export_batch_size=min(BATCH_SPANS, most)
        )

    @property
    def waiting(self) -> int:
        counts = self._counts
        return self._taken - counts[Outcome.EXPORTED] - counts[Outcome.FAILED]

    def on_end(self, span: ReadableSpan) -> None:
        if self.waiting >= self._most:
            self._counts[Outcome.DROPPED] += 1
            return
        self._taken += 1
        self._batches.on_end(span)

    def shutdown(self) -> None:
        self._batches.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._batches.force_flush(timeout_millis)


class _Counted(SpanExporter):
    """Called by one thread only; the first trouble is told, and its end."""

    def __init__(self, exporter: SpanExporter, url: str, counts: dict[str, int]) -> None:
        self._exporter = exporter
        self._url = url
        self._counts = counts
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # whatever it is, the thread and the count go on
            log.debug("spans: %r", error)
            result = SpanExportResult.FAILURE
        failed = result is not SpanExportResult.SUCCESS
        self._counts[Outcome.FAILED if failed else Outcome.EXPORTED] += len(spans)
        if failed is not self._failing:
            self._failing = failed
            if failed:
                log.warning("spans can't be delivered; requests are served on", extra={"url": self._url})
            else:
                log.info("spans are delivered again", extra={"url": self._url})
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _queue_spans() -> int:
    text = os.environ.get(OTEL_BSP_MAX_QUEUE_SIZE, "")
    return max(1, int(text)) if text.isdecimal() else QUEUE_SPANS
