"""The answer to a generating request: submits it, follows it, writes it, and cancels it when the client goes.

In: checked requests for the core (`wire.Submit`) with one `Choice` each, and the endpoint's `Writer`. Out:
one JSON document, or server-sent events with one write per step of the core for all choices together. The
status line of a stream waits for the first output, so that a request which fails before it gets a status
that clients and routers can retry on.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from drift_engine import wire
from drift_engine.api import errors
from drift_engine.api.admission import Ticket
from drift_engine.api.choices import Choice, Delta
from drift_engine.api.context import Context
from drift_engine.api.flights import Flight, SlowReader
from drift_engine.api.metrics import Meter

STALL_S = 30.0
"""A client whose connection takes no byte for this long has its request cancelled."""

DONE = b"data: [DONE]\n\n"


class Writer(Protocol):
    """How one endpoint spells its answers. `choice` counts all choices of the HTTP request."""

    def events(self, choice: int, delta: Delta) -> bytes:
        """Server-sent events for what is new in one choice; empty when there is nothing to say."""

    def last_event(self, usage: dict[str, Any]) -> bytes:
        """The event with the usage."""

    def add(self, choice: int, delta: Delta) -> None:
        """Collects what is new in one choice."""

    def body(self, usage: dict[str, Any]) -> bytes:
        """All that was collected."""


@dataclasses.dataclass
class Work:
    """One request to the core and what follows it."""

    submit: wire.Submit
    choice: Choice
    meter: Meter


class Answer(Response):
    """Runs when the server calls it, so that errors before the first byte are ordinary error answers."""

    def __init__(
        self,
        context: Context,
        ticket: Ticket,
        works: Sequence[Work],
        writer: Writer,
        *,
        stream: bool,
        include_usage: bool,
        choices_per_prompt: int,
    ) -> None:
        super().__init__()
        self._context = context
        self._ticket = ticket
        self._works = works
        self._writer = writer
        self._is_stream = stream
        self._include_usage = include_usage
        self._choices_per_prompt = choices_per_prompt

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._ticket.grow(len(self._works))
        except errors.ApiError:
            self._context.metrics.rejected("full")
            raise
        flight = Flight(self._context.link, [work.submit for work in self._works])
        watcher = asyncio.create_task(_watch(receive, flight))
        try:
            await (self._stream(flight, send) if self._is_stream else self._collect(flight, send))
        except (SlowReader, TimeoutError):
            # what is buffered for this client will not be read: drop it with the connection
            abort: Callable[[], None] | None = scope.get("extensions", {}).get("drift.abort", {}).get("call")
            if abort is not None:
                abort()
        finally:
            watcher.cancel()
            flight.close()
            self._account(scope)

    async def _collect(self, flight: Flight, send: Send) -> None:
        while not flight.done:
            if not (arrivals := await flight.take()):
                return
            for choice, output, at_s in arrivals:
                delta = self._feed(choice, output, at_s)
                self._writer.add(choice, delta)
                self._settle(flight, choice, delta, at_s)
        body = self._writer.body(self._usage())
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        async with asyncio.timeout(STALL_S):
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    async def _stream(self, flight: Flight, send: Send) -> None:
        started = False
        more = True
        while more:
            if not (arrivals := await flight.take()):
                return
            events = bytearray()
            try:
                for choice, output, at_s in arrivals:
                    delta = self._feed(choice, output, at_s)
                    events += self._writer.events(choice, delta)
                    self._settle(flight, choice, delta, at_s)
                if flight.done:
                    more = False
                    events += self._writer.last_event(self._usage()) if self._include_usage else b""
                    events += DONE
            except errors.ApiError as error:
                if not started:
                    raise
                more = False
                events += b"data: " + error.body() + b"\n\n" + DONE
            if not events:
                continue
            async with asyncio.timeout(STALL_S):
                if not started:
                    started = True
                    await send({"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS})
                await send({"type": "http.response.body", "body": bytes(events), "more_body": more})

    def _feed(self, index: int, output: wire.Output, at_s: float) -> Delta:
        """Raises 500 or 503 for an output that ends the request without an answer."""
        work = self._works[index]
        if output.finish is wire.FinishReason.ABORTED:
            work.meter.end("abort", at_s)
            reason = output.error or "the engine gave the request up"
            raise errors.unavailable(reason) if self._context.health.draining else errors.failed(reason)
        if work.choice.finished:
            return Delta()  # on its way when the choice was ended here
        delta = work.choice.feed(output)
        work.meter.tokens(at_s, len(delta.token_ids), work.choice.cached_tokens, output.queued_s)
        return delta

    def _settle(self, flight: Flight, index: int, delta: Delta, at_s: float) -> None:
        """Ends a choice after its last delta was written; the writer may have ended it (a last tool call)."""
        if delta.finish is not None:
            self._works[index].choice.finished = True
            self._works[index].meter.end(delta.finish, at_s)
        if delta.stopped:
            flight.end(index)

    def _usage(self) -> dict[str, Any]:
        first = self._works[:: self._choices_per_prompt]
        prompt = sum(len(work.submit.token_ids) for work in first)
        answer = sum(work.choice.tokens for work in self._works)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": answer,
            "total_tokens": prompt + answer,
            "prompt_tokens_details": {"cached_tokens": sum(work.choice.cached_tokens for work in first)},
        }

    def _account(self, scope: Scope) -> None:
        now_s = time.monotonic()
        for work in self._works:
            work.meter.end("cancelled", now_s)
        usage = self._usage()
        scope.setdefault("state", {})["summary"] = {
            "prompt_tokens": usage["prompt_tokens"],
            "cached_tokens": usage["prompt_tokens_details"]["cached_tokens"],
            "completion_tokens": usage["completion_tokens"],
            "ttft_ms": round(1000 * ttft_s, 1)
            if (ttft_s := self._works[0].meter.ttft_s) is not None
            else None,
        }


_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # proxies of nginx's kind would collect the stream
]


async def _watch(receive: Receive, flight: Flight) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    flight.leave()


def event(document: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(document) + b"\n\n"
