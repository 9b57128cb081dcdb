"""What a node tells of a traced request: its span, and within it what the request waited for and what was computed.

The core says when it was at work (`wire.Output.blocks`), the answer when tokens came; spans are made of that once the
request is over. Nothing of what people ask or models answer is in them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from drift_engine import wire
from drift_engine.tracing.spans import OPERATIONS, Attributes, Event, Span

if TYPE_CHECKING:
    from drift_engine.tracing.recording import Headers, OpenSpan, Recorder

MOST_CHOICES = 8
"""Of one HTTP request that are told one by one: 128 of them would be thousands of spans."""

SERVER_ERROR = 500


@dataclass(slots=True)
class ChoiceTrace:
    """One choice's way through the core. Times are monotonic seconds."""

    submit: wire.Submit
    cached_tokens: int = 0
    queued_s: float = 0.0
    first_s: float | None = None
    last_s: float = 0.0
    tokens: int = 0
    longest_gap_s: float = 0.0
    blocks: list[wire.Block] = field(default_factory=list)

    def told(self, output: wire.Output, at_s: float) -> None:
        self.blocks += output.blocks
        if not output.token_ids:
            return
        if self.first_s is None:
            self.first_s = at_s
            self.queued_s, self.cached_tokens = output.queued_s, output.cached_tokens
        else:
            self.longest_gap_s = max(self.longest_gap_s, at_s - self.last_s)
        self.last_s = at_s
        self.tokens += len(output.token_ids)


class RequestTrace:
    """One HTTP request."""

    def __init__(self, span: OpenSpan, path: str, start_s: float) -> None:
        self._span = span
        self._start_s = start_s
        self._operation = OPERATIONS[path]
        self._choices: list[ChoiceTrace] = []
        self._prompt_tokens = self._answer_tokens = 0
        self._model = ""
        self._stream = False
        self._submitted_s: float | None = None
        self._finishes: list[str] = []

    def choice(self, submit: wire.Submit) -> ChoiceTrace | None:
        """None: enough of this request's are followed."""
        if len(self._choices) == MOST_CHOICES:
            return None
        self._choices.append(ChoiceTrace(submit))
        return self._choices[-1]

    def submitted(self, model: str, at_s: float, *, stream: bool) -> None:
        """The request was read and goes to the core."""
        self._model, self._submitted_s, self._stream = model, at_s, stream

    def answered(self, prompt_tokens: int, answer_tokens: int, finishes: list[str]) -> None:
        """Of all its choices."""
        self._prompt_tokens, self._answer_tokens, self._finishes = prompt_tokens, answer_tokens, finishes

    def end(self, status: int, at_s: float) -> None:
        """The last byte of the answer was handed on, or the client has left; `status` 0: it heard nothing."""
        attributes: dict[str, str | bool | int | float | list[str]] = {}
        if status:
            attributes["http.response.status_code"] = status
        children: list[Span] = []
        if self._submitted_s is not None:
            attributes |= self._told(at_s)
            children.append(Span("read request", self._start_s, self._submitted_s))
            for index, choice in enumerate(self._choices):
                own: Attributes = {"drift.choice": index} if len(self._choices) > 1 else {}
                children += spans(choice, self._submitted_s, own)
                if index == 0 and choice.first_s is not None:
                    self._span.event(Event("first token", choice.first_s))
        error = None
        if status >= SERVER_ERROR:
            error = str(status)
        elif "abort" in self._finishes:
            error = "abort"
        self._span.end(at_s, attributes, children, error)

    def _told(self, at_s: float) -> dict[str, str | bool | int | float | list[str]]:
        first = self._choices[0]
        sampling = first.submit.sampling
        told: dict[str, str | bool | int | float | list[str]] = {
            "gen_ai.response.model": self._model,
            "gen_ai.request.max_tokens": sampling.max_tokens,
            "gen_ai.request.temperature": sampling.temperature,
            "gen_ai.request.top_p": sampling.top_p,
            "gen_ai.request.stream": self._stream,
            "gen_ai.usage.input_tokens": self._prompt_tokens,
            "gen_ai.usage.output_tokens": self._answer_tokens,
            "gen_ai.usage.cache_read.input_tokens": first.cached_tokens,
            "gen_ai.response.finish_reasons": self._finishes,
            "gen_ai.latency.e2e": at_s - self._start_s,
        }
        if first.first_s is not None:
            told["gen_ai.latency.time_to_first_token"] = first.first_s - self._start_s
            told["gen_ai.latency.time_in_queue"] = first.queued_s
        if first.submit.drawn_token_ids:
            told["drift.resumed_tokens"] = len(first.submit.drawn_token_ids)
        if first.submit.priority:
            told["drift.priority"] = first.submit.priority
        return told


def begin(recorder: Recorder, path: str, model: str, headers: Headers, start_s: float) -> RequestTrace | None:
    """Of a request to one of `OPERATIONS`. None: it is not chosen."""
    operation = OPERATIONS[path]
    span = recorder.serve(
        f"POST {path}",
        start_s,
        headers,
        {
            "http.request.method": "POST",
            "http.route": path,
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": "drift",
            "gen_ai.request.model": model,
        },
    )
    return RequestTrace(span, path, start_s) if span.recorded else None


def spans(choice: ChoiceTrace, submitted_s: float, attributes: Attributes) -> Iterator[Span]:
    """What the core did for it, in order and without gaps, as far as it is known: nothing is of a request that ended
    before its first token.
    """
    if choice.first_s is None:
        return
    first_s = choice.first_s
    admitted_s = min(max(submitted_s, choice.submit.arrival_s + choice.queued_s), first_s)
    before = [block for block in choice.blocks if block.start_s < first_s]
    later = choice.blocks[len(before) :]
    computed = sum(block.tokens for block in before)
    yield Span("queue", submitted_s, admitted_s, attributes)
    yield Span(
        "prefill",
        admitted_s,
        first_s,
        {**attributes, "drift.prefill.tokens": computed, "drift.prefill.cached_tokens": choice.cached_tokens},
        children=[_block(block) for block in before],
    )
    if choice.tokens > 1:
        told = {"drift.decode.tokens": choice.tokens - 1, "drift.decode.longest_gap_s": choice.longest_gap_s}
        # It gave its pages up and was computed again.
        again = [_block(block) for block in later]
        yield Span("decode", first_s, choice.last_s, {**attributes, **told}, children=again)


def _block(block: wire.Block) -> Span:
    return Span(
        "prefill block",
        block.start_s,
        block.end_s,
        {
            "drift.lane": block.lane,
            "drift.block.tokens": block.tokens,
            "drift.block.decode_rows": block.decode_rows,
            "drift.block.first_layer": block.first_layer,
            "drift.block.end_layer": block.end_layer,
            "drift.block.launches": block.launches,
        },
    )
