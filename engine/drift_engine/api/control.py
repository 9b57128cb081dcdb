"""The control port, for the operator and the router: report, split, targets, drain, flush, and the
events of the prefix cache.

Everything here needs the control token, as `Authorization: Bearer TOKEN` or `x-drift-token`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from fastapi import FastAPI, Query
from pydantic import Field
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp

from drift_engine import wire
from drift_engine.api import documents, errors, kv_events
from drift_engine.api.context import Context
from drift_engine.api.documents import Documented
from drift_engine.api.requests import Body
from drift_engine.api.setpoints import SetPoint
from drift_engine.api.token_gate import TokenGate
from drift_engine.node.health import Phase

MAX_DRAIN_S = 3600.0


class TargetsRequest(Body):
    ttft_ms: float = Field(gt=0)
    ttft_per_token_ms: float = Field(0.0, ge=0)
    tbt_ms: float = Field(gt=0)


class DrainRequest(Body):
    timeout_s: float | None = Field(None, ge=0, le=MAX_DRAIN_S)


def create_control_app(context: Context) -> ASGIApp:
    return TokenGate(routes(context), context.control_token)


def routes(context: Context) -> FastAPI:
    """What is behind the gate."""
    app = Documented(title="Drift control", docs_url=None, redoc_url=None)
    errors.install(app)

    @app.get("/control/v1/report", responses=documents.answers(wire.Report, failures=documents.KEYED))
    async def read_report() -> Response:
        return Response(msgspec.json.encode(report(context)), media_type="application/json")

    @app.put(
        "/control/v1/split",
        responses=documents.answers(documents.SplitTaken, failures=(*documents.TOLD, 409, 503)),
    )
    async def split(asked: SetPoint) -> dict[str, Any]:
        """Bounds of the split and the node's weight, until the time to live is over."""
        ready = context.serving(None).ready
        context.link.set_bounds(context.set_points.take(asked, ready.splits, time.monotonic()))
        stats = context.metrics.stats
        return {
            "epoch": asked.epoch,
            "applied": wire.to_builtins(stats.split) if stats else None,
            "legal_splits": wire.to_builtins(ready.splits),
        }

    @app.put(
        "/control/v1/targets",
        responses=documents.answers(documents.TargetsTaken, failures=(*documents.TOLD, 503)),
    )
    async def targets(asked: TargetsRequest) -> dict[str, Any]:
        """The promise from now on, also to requests that run."""
        context.serving(None)
        promise = wire.Targets(asked.ttft_ms, asked.ttft_per_token_ms, asked.tbt_ms)
        context.metrics.targets = promise
        context.link.set_targets(promise)
        return {"slo": wire.to_builtins(promise)}

    @app.post(
        "/control/v1/drain",
        responses=documents.answers(documents.Drained, failures=documents.TOLD),
    )
    async def drain(request: DrainRequest | None = None) -> dict[str, Any]:
        """Takes no new requests from now on; answers when those in flight have ended or the time is up."""
        asked = request.timeout_s if request is not None else None
        timeout_s = context.options.drain_timeout_s if asked is None else asked
        context.health.drain()
        before = context.admission.answering
        start_s = time.monotonic()
        drained = await context.admission.idle(timeout_s)
        left = context.admission.answering
        return {
            "drained": drained,
            "in_flight": left,
            "finished": before - left,
            "waited_s": round(time.monotonic() - start_s, 3),
        }

    @app.post(
        "/control/v1/flush",
        responses=documents.answers(documents.Status, failures=(*documents.KEYED, 503)),
    )
    async def flush() -> dict[str, str]:
        """Forgets the cached prefixes that no running request uses."""
        context.serving(None)
        context.link.flush_cache()
        return {"status": "accepted"}

    @app.get("/kv/v1/state", responses=documents.answers(documents.KvState, failures=documents.KEYED))
    async def state() -> dict[str, Any]:
        return context.kv_log.state()

    @app.get(
        "/kv/v1/events",
        response_class=Response,
        responses=documents.answers("application/x-ndjson", failures=(*documents.KEYED, 400, 410)),
    )
    async def events(after: Annotated[int | None, Query(ge=0)] = None, tokens: bool = True) -> Response:
        """Events with higher numbers than `after` (default: from now on), one JSON object a line, without end.

        Without `tokens` they name pages and leave out what is in them, most of their bytes.
        """
        start = context.kv_log.sequence if after is None else after
        try:
            context.kv_log.after(start)
        except kv_events.Gone as error:
            raise errors.ApiError(410, f"{error}; read /kv/v1/state and follow from its sequence") from error
        return StreamingResponse(_lines(context, start, tokens=tokens), media_type="application/x-ndjson")

    return app


async def _lines(context: Context, sequence: int, *, tokens: bool) -> AsyncIterator[bytes]:
    closing = asyncio.ensure_future(context.closing.wait())
    try:
        yield b""  # the status line at once, even when nothing happens for long
        while not context.closing.is_set():
            try:
                found = context.kv_log.after(sequence, tokens=tokens)
            except kv_events.Gone:
                return  # the reader was too slow: asking again with its number tells it so
            if found:
                sequence = found[-1]["sequence"]
                yield b"".join(msgspec.json.encode(event) + b"\n" for event in found)
                continue
            change = asyncio.ensure_future(context.kv_log.change())
            await asyncio.wait({change, closing}, return_when=asyncio.FIRST_COMPLETED)
            change.cancel()
    finally:
        closing.cancel()


def report(context: Context) -> wire.Report:
    health, metrics, stats, ready = (
        context.health,
        context.metrics,
        context.metrics.stats,
        context.health.ready,
    )
    point = context.set_points.present(time.monotonic())
    return wire.Report(
        node=context.options.node,
        model=context.name,
        role=context.options.role,
        mode=ready.mode if ready else context.options.mode,
        ready=health.phase is Phase.READY,
        draining=health.draining,
        in_flight=context.admission.answering,
        max_in_flight=context.admission.limit,
        running=stats.running if stats else 0,
        waiting=stats.waiting if stats else 0,
        queued_tokens=stats.queued_tokens if stats else 0,
        kv_usage=stats.kv_pages_held / stats.kv_pages_total if stats and stats.kv_pages_total else 0.0,
        kv_pages_total=ready.kv_pages if ready else 0,
        page_tokens=ready.page_tokens if ready else context.options.page_tokens,
        max_model_len_tokens=ready.max_model_len_tokens if ready else 0,
        legal_splits=ready.splits if ready else (),
        split=stats.split if stats else None,
        epoch=point.epoch if point else 0,
        generation=point.generation if point else 0,
        applied=point is not None and stats is not None and stats.bounds_epoch == point.epoch,
        weight=point.weight if point else 1.0,
        slo=metrics.targets,
        prefill_tokens_per_s=stats.prefill_tokens_per_s if stats else 0.0,
        tbt_p50_ms=metrics.tbt_ms(0.5),
        tbt_p99_ms=metrics.tbt_ms(0.99),
        tbt_per_request_ms=1000 * stats.tbt_per_request_s if stats else 0.0,
        kv_events_sequence=context.kv_log.sequence,
        uptime_s=time.monotonic() - context.started_s,
        prompt_tokens_total=stats.prompt_tokens_total if stats else 0,
        cached_tokens_total=stats.cached_tokens_total if stats else 0,
        costs=metrics.costs.splits,
        whole=metrics.costs.whole,
        decode_context_tokens=stats.decode_context_tokens if stats else 0,
        max_running=context.options.max_running,
        bounds=point.range if point else None,
        activity_s_total=stats.activity_s_total if stats else {},
        ahead=stats.ahead if stats else (),
    )
