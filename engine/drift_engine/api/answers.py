"""The answer to a generating request: submits it, follows it, writes it, and cancels it when the client goes.

In: checked requests for the core (`wire.Submit`) with one `Choice` each, and the endpoint's `Writer`. Out:
one JSON document, or server-sent events with one write per step of the core for all choices together. The
status line of a stream waits for the first output, so that a request which fails before it gets a status
that clients and routers can retry on.

A stream may be resumable: every write that brings tokens ends with a comment that names them (`: tokens 12 13`), also
those whose text is held back. What is streamed from then on follows from the tokens so far, so a router that relays
whole writes can let another node go on (`wire.Submit.drawn_token_ids`) when this one has to leave, which closes the
connection without the last chunk.
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
from drift_engine.api import errors, page_hints
from drift_engine.api.callers import Caller
from drift_engine.api.choices import Choice, Delta
from drift_engine.api.context import Context
from drift_engine.api.flights import Flight, SlowReader
from drift_engine.api.metrics import Meter
from drift_engine.api.request_traces import ChoiceTrace

STALL_S = 30.0
"""A client whose connection takes no byte for this long has its request cancelled."""

DONE = b"data: [DONE]\n\n"


class Writer(Protocol):
    """How one endpoint spells its answers. `choice` counts all choices of the HTTP request."""

    def events(self, choice: int, delta: Delta) -> bytes:
        """Server-sent events for what is new in one choice; empty when there is nothing to say."""

    def resume(self, choice: int, delta: Delta) -> bytes:
        """Takes what was streamed before; the event that ends the choice, if that was all of it."""

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
    trace: ChoiceTrace | None = None


class NodeLeft(Exception):  # noqa: N818 - a fact about the node
    """It won't end this answer, and another can."""


class Answer(Response):
    """Runs when the server calls it, so that errors before the first byte are ordinary error answers."""

    def __init__(
        self,
        context: Context,
        caller: Caller,
        works: Sequence[Work],
        writer: Writer,
        *,
        stream: bool,
        include_usage: bool,
        choices_per_prompt: int,
    ) -> None:
        super().__init__()
        self._context = context
        self._caller = caller
        self._works = works
        self._writer = writer
        self._is_stream = stream
        self._include_usage = include_usage
        self._choices_per_prompt = choices_per_prompt
        self._resumable = caller.resumable and stream and len(works) == 1
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._caller.ticket.grow(len(self._works))
        except errors.ApiError:
            self._context.metrics.rejected("full")
            raise
        if (trace := self._caller.trace) is not None:
            trace.submitted(self._context.name, time.monotonic(), stream=self._is_stream)
        end = self._replay()
        flight = Flight(self._context.link, [] if end else [work.submit for work in self._works])
        watcher = asyncio.create_task(_watch(receive, flight))
        try:
            if end:
                await self._write(send, end + self._closing(), more=False)
            else:
                await (self._stream(flight, send) if self._is_stream else self._collect(flight, send))
        except (SlowReader, TimeoutError):
            # what is buffered for this client will not be read: drop it with the connection
            await _hang_up(scope, "drift.abort", watcher)
        except NodeLeft:
            await _hang_up(scope, "drift.close", watcher)
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
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            *self._hints(),
        ]
        async with asyncio.timeout(STALL_S):
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    async def _stream(self, flight: Flight, send: Send) -> None:
        more = True
        while more:
            if not (arrivals := await flight.take()):
                return
            events, token_ids, left = bytearray(), list[int](), False
            try:
                for choice, output, at_s in arrivals:
                    delta = self._feed(choice, output, at_s)
                    token_ids += delta.token_ids
                    events += self._spell(choice, delta)
                    self._settle(flight, choice, delta, at_s)
                if flight.done:
                    more = False
                    events += self._closing()
            except errors.ApiError as error:
                if not self._started:
                    raise
                left = self._resumable and self._context.health.refusal() is not None
                if not left:
                    more = False
                    events += b"data: " + error.body() + b"\n\n" + DONE
            if self._resumable and token_ids:
                events += _comment(token_ids)
            if events:
                await self._write(send, bytes(events), more=more)
            if left:
                raise NodeLeft

    async def _write(self, send: Send, events: bytes, *, more: bool) -> None:
        async with asyncio.timeout(STALL_S):
            if not self._started:
                self._started = True
                headers = [*_STREAM_HEADERS, *self._hints()]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": events, "more_body": more})

    def _replay(self) -> bytes:
        """Follows what a resumed answer has already; the event that ends it, if that is all of it."""
        work = self._works[0]
        if not work.submit.drawn_token_ids:
            return b""
        delta = work.choice.feed(wire.Output(work.submit.request_id, work.submit.drawn_token_ids))
        end = self._writer.resume(0, delta)
        if delta.finish is not None:
            work.meter.end(delta.finish, time.monotonic())
        return end

    def _spell(self, index: int, delta: Delta) -> bytes:
        if delta.token_ids:
            return self._writer.events(index, delta)
        # the core's word that a resumed answer was complete: its text was streamed with its last token
        return self._writer.resume(index, delta) if delta.finish is not None else b""

    def _closing(self) -> bytes:
        return (self._writer.last_event(self._usage()) if self._include_usage else b"") + DONE

    def _hints(self) -> list[tuple[bytes, bytes]]:
        """What a router wants to know beside the answer, once its first output is there."""
        caller, first = self._caller, self._works[0]
        if not caller.trusted:
            return []
        headers = [(b"x-drift-node", self._context.options.node.encode())]
        if self._resumable:
            headers.append((b"x-drift-seed", b"%d" % first.submit.sampling.seed))
        ready = self._context.health.ready
        answered = first.choice.tokens > len(first.submit.drawn_token_ids)
        if caller.wants_pages and answered and ready is not None:
            hints = page_hints.header(
                first.submit.token_ids, caller.salt, ready.page_tokens, first.choice.cached_tokens
            )
            headers.append((b"x-drift-pages", hints))
        return headers

    def _feed(self, index: int, output: wire.Output, at_s: float) -> Delta:
        """Raises 500 or 503 for an output that ends the request without an answer."""
        work = self._works[index]
        if work.trace is not None:
            work.trace.told(output, at_s)
        if output.finish is wire.FinishReason.ABORTED:
            work.meter.end("abort", at_s)
            reason = output.error or "the engine gave the request up"
            # A node that drains, or whose core died, is not the request's fault: a router asks another one.
            gone = self._context.health.refusal() is not None
            raise errors.unavailable(reason) if gone else errors.failed(reason)
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
        if (trace := self._caller.trace) is not None:
            finishes = [work.meter.ended or "" for work in self._works]
            trace.answered(usage["prompt_tokens"], usage["completion_tokens"], finishes)
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


async def _hang_up(scope: Scope, how: str, watcher: asyncio.Task[None]) -> None:
    """Ends the connection in the middle of the answer, and waits until it has ended."""
    call: Callable[[], None] | None = scope.get("extensions", {}).get(how, {}).get("call")
    if call is not None:
        call()
        await asyncio.wait({watcher}, timeout=STALL_S)


def _comment(token_ids: Sequence[int]) -> bytes:
    return b": tokens " + b" ".join(b"%d" % token_id for token_id in token_ids) + b"\n\n"


async def _watch(receive: Receive, flight: Flight) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    flight.leave()


def event(document: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(document) + b"\n\n"
