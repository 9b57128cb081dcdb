"""What the node answers, as types that its OpenAPI documents are made from. Answers themselves are written elsewhere:
tests hold the two together.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from fastapi import FastAPI

from drift_engine import openapi, wire
from drift_engine.openapi import Failure


class PromptDetails(msgspec.Struct):
    cached_tokens: int


class Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class AnswerFunction(msgspec.Struct):
    name: str
    arguments: str


class AnswerToolCall(msgspec.Struct):
    id: str
    type: Literal["function"]
    function: AnswerFunction


class AnswerMessage(msgspec.Struct):
    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: list[AnswerToolCall] = []


class ChatChoice(msgspec.Struct):
    index: int
    message: AnswerMessage
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length", "tool_calls"]


class ChatCompletion(msgspec.Struct):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class TextChoice(msgspec.Struct):
    index: int
    text: str
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length"]


class Completion(msgspec.Struct):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage


class Card(msgspec.Struct):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    max_model_len: int
    mode: wire.Mode


class Cards(msgspec.Struct):
    object: Literal["list"]
    data: list[Card]


class Tokens(msgspec.Struct):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class Text(msgspec.Struct):
    prompt: str


class Version(msgspec.Struct):
    version: str


class ServerInfo(msgspec.Struct):
    served_model_name: str
    version: str


class Status(msgspec.Struct):
    status: str


class Readiness(msgspec.Struct):
    status: str
    stage: str = ""
    done: int = 0
    total: int = 0


class SplitTaken(msgspec.Struct):
    epoch: int
    applied: wire.Split | None
    legal_splits: list[wire.Split]


class TargetsTaken(msgspec.Struct):
    slo: wire.Targets


class Drained(msgspec.Struct):
    drained: bool
    in_flight: int
    finished: int
    waited_s: float


class KvState(msgspec.Struct):
    sequence: int
    page_tokens: int
    blocks: list[tuple[int, int | None]]


_KINDS = (
    *(Failure, ChatCompletion, Completion, Card, Cards, Tokens, Text, Version, Status, Readiness),
    *(wire.Report, SplitTaken, TargetsTaken, Drained, KvState),
)

KEYED = (401,)
"""What everything answers that needs a key or a token."""

SERVED = (*KEYED, 404, 503)
"""And what names a model."""

ASKED = (*SERVED, 400, 408, 413, 429, 500)
"""And what has a body on the public port."""


TOLD = (*KEYED, 400, 408, 413)
"""And what has a body on the control port."""


def answers(*kinds: Any, failures: tuple[int, ...] = ()) -> dict[int | str, dict[str, Any]]:
    """`responses` of a FastAPI route: success in any of these forms, or one of these failures."""
    success: dict[str, Any] = {"description": "OK", "content": {}}
    for kind in kinds:
        success["content"] |= openapi.answer(200, kind)["content"]
    return {200: success, **{status: openapi.answer(status, Failure) for status in sorted(failures)}}


class Documented(FastAPI):
    """Its document has the types above, and not what FastAPI would answer to a body that can't be used."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            made = super().openapi()
            for path in made["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
            schemas = made.setdefault("components", {}).setdefault("schemas", {})
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            ours = openapi.components(_KINDS)
            assert not schemas.keys() & ours.keys(), "two types have the same name"
            schemas |= ours
        assert self.openapi_schema is not None
        return self.openapi_schema
