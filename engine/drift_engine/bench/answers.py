"""One streamed answer, chunk by chunk: when tokens came, how many, and how it ended. No network code, no clock.

How many tokens a chunk holds, first rule that applies: the growth of its `usage.completion_tokens`; the length of its
`token_ids`; the length of its log probabilities; one if it has text (content, reasoning or a tool call). A chunk that
only names the role holds none. The answer's total is the last `usage`'s.
"""

from __future__ import annotations

from typing import Any

import msgspec

from drift_engine import wire


class _Logprobs(msgspec.Struct):
    tokens: list[Any] | None = None  # completions
    content: list[Any] | None = None  # chat


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning: str | None = None  # vLLM since 0.12
    reasoning_content: str | None = None  # before, and SGLang
    tool_calls: list[Any] | None = None


class _Choice(msgspec.Struct):
    text: str | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None
    token_ids: list[int] | None = None
    logprobs: _Logprobs | None = None


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


_decoder = msgspec.json.Decoder(_Chunk)


class AnswerError(Exception):
    """The stream says that the answer failed, or is not what a server of this API sends."""


class Answer:
    """Feed it the data of events with the time at which they were read."""

    def __init__(self) -> None:
        self.token_times_s: list[float] = []
        self.token_counts: list[int] = []
        self.finish_reason: str | None = None
        self.prompt_tokens: int | None = None
        self.cached_tokens: int | None = None
        self.output_tokens: int | None = None
        self.exact_counts = False
        self.done = False
        self._counted = 0

    def feed(self, data: bytes, time_s: float) -> None:
        """Raises AnswerError."""
        if data == b"[DONE]":
            self.done = True
            return
        try:
            chunk = _decoder.decode(data)
        except wire.UNREADABLE as error:
            raise AnswerError(f"malformed chunk: {error}") from error
        if chunk.error is not None:
            raise AnswerError(f"stream: {error_message(chunk.error)}")
        if chunk.usage is not None:
            self._take_usage(chunk.usage)
        for choice in chunk.choices:
            if choice.finish_reason is not None:
                self.finish_reason = choice.finish_reason
            tokens = self._tokens(choice, chunk.usage)
            if tokens:
                self._count(tokens, time_s)

    def close(self) -> None:
        """The stream ended. Raises AnswerError if the answer did not."""
        if self.finish_reason is None:
            raise AnswerError("the stream ended before the answer did")
        # Fewer counted: tokens without text of their own came with some chunk, and nobody knows with which.
        self.exact_counts = self.output_tokens == self._counted

    def _take_usage(self, usage: _Usage) -> None:
        if usage.prompt_tokens is not None:
            self.prompt_tokens = usage.prompt_tokens
        if usage.completion_tokens is not None:
            self.output_tokens = usage.completion_tokens
        if usage.prompt_tokens_details is not None and usage.prompt_tokens_details.cached_tokens is not None:
            self.cached_tokens = usage.prompt_tokens_details.cached_tokens

    def _tokens(self, choice: _Choice, usage: _Usage | None) -> int:
        if usage is not None and usage.completion_tokens is not None:
            return max(0, usage.completion_tokens - self._counted)
        if choice.token_ids is not None:
            return len(choice.token_ids)
        if choice.logprobs is not None:
            named = choice.logprobs.tokens or choice.logprobs.content
            if named:
                return len(named)
        delta = choice.delta
        text = choice.text or (delta and (delta.content or _thought(delta) or delta.tool_calls))
        return 1 if text else 0

    def _count(self, tokens: int, time_s: float) -> None:
        self._counted += tokens
        if self.token_times_s and self.token_times_s[-1] == time_s:
            self.token_counts[-1] += tokens
        else:
            self.token_times_s.append(time_s)
            self.token_counts.append(tokens)


def _thought(delta: _Delta) -> str | None:
    return delta.reasoning or delta.reasoning_content


def error_message(error: Any) -> str:
    """The message of an error in OpenAI's shape, or whatever came instead, on one short line."""
    message = error.get("message") if isinstance(error, dict) else None
    return " ".join(str(message or error).split())[:300]
