"""What the router tells of a traced request: its span, and within it one for each node that was asked.

The trace goes on at the node, which is shown the span of the attempt. A request that was not chosen is told on as not
chosen, so that no node begins a trace of its own in the middle. Nothing of what people ask or models answer is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from drift_engine.tracing.spans import OPERATIONS, Attributes, Event
from drift_router.dataplane.prompts import Prompt
from drift_router.dataplane.requests import Headers, Request
from drift_router.dataplane.upstreams import Loss
from drift_router.snapshots import Decision

if TYPE_CHECKING:
    from drift_engine.tracing.recording import OpenSpan, Recorder

CONTEXT = frozenset({b"traceparent", b"tracestate"})

MODEL_CHARACTERS = 256
"""Of the name that a client gives; longer ones are no model's."""

CLIENT_ERROR, SERVER_ERROR = 400, 500
"""By the conventions for HTTP the span of who asks is an error from the first on, of who answers from the second."""


class Trail:
    """One request's, from its arrival to its end. Times are the exchange's clock's."""

    __slots__ = (
        "_attempt",
        "_attempts",
        "_authority",
        "_begun",
        "_loss",
        "_name",
        "_route",
        "_span",
        "_status",
    )

    def __init__(self, recorder: Recorder, request: Request, prompt: Prompt, arrival_s: float) -> None:
        route = request.path.decode("latin-1")
        self._name = f"POST {route}"
        self._span = recorder.serve(
            self._name,
            arrival_s,
            request.headers,
            {
                "http.request.method": "POST",
                "http.route": route,
                "gen_ai.operation.name": OPERATIONS[route],
                "gen_ai.request.model": prompt.model[:MODEL_CHARACTERS],
                "gen_ai.request.stream": prompt.streamed,
            },
        )
        self._attempt: OpenSpan | None = None
        self._attempts = 0
        self._authority = b""
        self._route: Attributes = {}
        self._loss: Loss | None = None
        self._status = 0
        self._begun = False

    def waits(self, now_s: float) -> None:
        """For room under the promise."""
        if self._span.recorded:
            self._span.event(Event("drift.waits", now_s))

    def sent(self, node: str, decision: Decision, now_s: float, seen_tokens: int) -> None:
        """To a node; `seen_tokens` of its answer the client has already."""
        if not self._span.recorded:
            return
        if self._loss is not None:
            name = "drift.resume" if self._begun else "drift.retry"
            lost: Attributes = {
                "drift.node": node,
                "drift.loss": str(self._loss),
                "drift.seen_tokens": seen_tokens,
            }
            self._span.event(Event(name, now_s, lost))
        self._route = {
            "drift.node": node,
            "drift.route.reason": str(decision.reason),
            "drift.route.ttft_s": decision.ttft_s,
            "drift.route.hit_tokens": decision.matched_tokens,
            "drift.route.uncached_tokens": decision.uncached_tokens,
        }
        told: Attributes = {"http.request.method": "POST", "http.request.resend_count": self._attempts}
        self._attempt = self._span.call(self._name, now_s, {**told, **self._route})
        self._attempts += 1
        self._status = 0

    def passed_on(self, headers: Headers, authority: bytes) -> Headers:
        """These headers, with the trace that the node at `authority` is part of."""
        self._authority = authority
        span = self._attempt or self._span
        return [*(pair for pair in headers if pair[0] not in CONTEXT), *span.headers]

    def answered(self, status: int) -> None:
        """The head of a node's answer."""
        self._status = status

    def first_byte(self, now_s: float) -> None:
        """Of a node's answer."""
        self._begun = True
        if self._attempt is not None:
            self._attempt.event(Event("first byte", now_s))

    def lost(self, loss: Loss, now_s: float) -> None:
        """The node failed it."""
        self._loss = loss
        self._end_attempt(now_s, str(loss))

    def ended(self, outcome: str, status: int, drawn_tokens: int, prompt_tokens: int, now_s: float) -> None:
        """For the client. `status` 0: it has left before it heard anything."""
        error = str(status) if status >= SERVER_ERROR else None
        self._end_attempt(now_s, error)
        attributes = {
            **self._route,
            "drift.outcome": outcome,
            "drift.attempts": self._attempts,
            "gen_ai.usage.input_tokens": prompt_tokens,
            "gen_ai.usage.output_tokens": drawn_tokens,
        }
        if status:
            attributes["http.response.status_code"] = status
        self._span.end(now_s, attributes, error=error)

    def _end_attempt(self, now_s: float, error: str | None) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            status = {"http.response.status_code": self._status} if self._status else {}
            if error is None and self._status >= CLIENT_ERROR:
                error = str(self._status)
            host, _, port = self._authority.decode("latin-1").rpartition(":")
            server: Attributes = (
                {"server.address": host, "server.port": int(port)} if port.isdecimal() else {}
            )
            attempt.end(now_s, {**server, **status}, error=error)
