"""POST /v1/chat/completions: messages through the model's template, answers as messages with tool calls."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from drift_engine import openapi, wire
from drift_engine.api import documents, errors, grammars, logprobs
from drift_engine.api.answers import Answer, event
from drift_engine.api.callers import caller
from drift_engine.api.choices import Delta
from drift_engine.api.context import Context, Model
from drift_engine.api.requests import ChatRequest, Message, Tool
from drift_engine.api.submitting import Identity, Plan, identity, stream_options, works
from drift_engine.api.tools import Piece, ToolParser


class ChatWriter:
    """Answers of type chat.completion; `parsers` has one tool parser for each choice, or none."""

    def __init__(
        self,
        model: Model,
        name: str,
        identity: Identity,
        choices: int,
        top: int | None,
        parsers: Sequence[ToolParser],
        include_usage: bool,
    ) -> None:
        self._tokenizer = model.tokenizer
        self._top = top
        self._parsers = parsers
        self._id = {"id": identity.id}
        self._head = {"created": identity.created, "model": name}
        self._usage = {"usage": None} if include_usage else {}
        self._begun = [False] * choices
        self._pieces: list[list[Piece]] = [[] for _ in range(choices)]
        self._logprobs: list[list[dict[str, Any]]] = [[] for _ in range(choices)]
        self._finish: list[str | None] = [None] * choices

    def events(self, choice: int, delta: Delta) -> bytes:
        found = self._found(delta)
        pieces = self._read(choice, delta)
        finish = self._reason(choice, delta)
        if not (pieces or found or finish):
            return b""
        deltas = [self._delta(choice, piece) for piece in pieces] or [{}]
        if not self._begun[choice]:
            self._begun[choice] = True
            deltas[0] = {
                "role": "assistant",
                "content": "" if "tool_calls" not in deltas[0] else None,
                **deltas[0],
            }
        last = len(deltas) - 1
        return b"".join(
            self._chunk(choice, each, found if index == 0 else None, finish if index == last else None)
            for index, each in enumerate(deltas)
        )

    def resume(self, choice: int, delta: Delta) -> bytes:
        shown = bool(self._read(choice, delta)) or (self._top is not None and bool(delta.token_ids))
        self._begun[choice] = self._begun[choice] or shown
        finish = self._reason(choice, delta)
        return self._chunk(choice, {}, None, finish) if finish else b""

    def _chunk(
        self, choice: int, delta: dict[str, Any], found: list[dict[str, Any]] | None, finish: str | None
    ) -> bytes:
        entry = {
            "index": choice,
            "delta": delta,
            "logprobs": {"content": found} if found else None,
            "finish_reason": finish,
        }
        chunk = {**self._id, "object": "chat.completion.chunk", **self._head, "choices": [entry]}
        return event({**chunk, **self._usage})

    def last_event(self, usage: dict[str, Any]) -> bytes:
        return event(
            {**self._id, "object": "chat.completion.chunk", **self._head, "choices": [], "usage": usage}
        )

    def add(self, choice: int, delta: Delta) -> None:
        self._logprobs[choice] += self._found(delta) or []
        self._pieces[choice] += self._read(choice, delta)
        self._finish[choice] = self._reason(choice, delta) or self._finish[choice]

    def body(self, usage: dict[str, Any]) -> bytes:
        choices = []
        for index, pieces in enumerate(self._pieces):
            found = {"content": self._logprobs[index]} if self._top is not None else None
            choices.append(
                {
                    "index": index,
                    "message": self._message(index, pieces),
                    "logprobs": found,
                    "finish_reason": self._finish[index],
                }
            )
        document = {**self._id, "object": "chat.completion", **self._head, "choices": choices, "usage": usage}
        return msgspec.json.encode(document)

    def _found(self, delta: Delta) -> list[dict[str, Any]] | None:
        return None if self._top is None else logprobs.chat(self._tokenizer, delta, self._top)

    def _read(self, choice: int, delta: Delta) -> list[Piece]:
        if not self._parsers:
            return [Piece(content=delta.text)] if delta.text else []
        parser = self._parsers[choice]
        pieces = parser.push(delta.text) if delta.text else []
        if parser.full and delta.finish is None:
            delta.finish, delta.stopped = "stop", True
        return pieces + (parser.flush() if delta.finish is not None else [])

    def _reason(self, choice: int, delta: Delta) -> str | None:
        called = bool(self._parsers) and self._parsers[choice].calls > 0
        return "tool_calls" if called and delta.finish == "stop" else delta.finish

    def _delta(self, choice: int, piece: Piece) -> dict[str, Any]:
        if piece.call < 0:
            return {"content": piece.content}
        call: dict[str, Any] = {"index": piece.call}
        if piece.name is not None:
            call |= {"id": self._call_id(choice, piece.call), "type": "function"}
            call["function"] = {"name": piece.name, "arguments": ""}
        else:
            call["function"] = {"arguments": piece.arguments}
        return {"tool_calls": [call]}

    def _message(self, choice: int, pieces: Sequence[Piece]) -> dict[str, Any]:
        calls: dict[int, dict[str, Any]] = {}
        for piece in pieces:
            if piece.name is not None:
                function = {"name": piece.name, "arguments": ""}
                call_id = self._call_id(choice, piece.call)
                calls[piece.call] = {"id": call_id, "type": "function", "function": function}
            elif piece.call >= 0:
                calls[piece.call]["function"]["arguments"] += piece.arguments
        content = "".join(piece.content for piece in pieces)
        message: dict[str, Any] = {"role": "assistant", "content": content if content or not calls else None}
        message["refusal"] = None
        if calls:
            message["tool_calls"] = list(calls.values())
        return message

    def _call_id(self, choice: int, call: int) -> str:
        """As unique as the answer's id, and the same wherever the answer goes on."""
        name = f"{self._id['id']}/{choice}/{call}"
        return f"call_{hashlib.sha256(name.encode()).hexdigest()[:24]}"


def for_template(messages: Sequence[Message], source: str) -> list[dict[str, Any]]:
    """Messages as templates expect them: text content, arguments as objects. Raises 400."""
    made = []
    for index, message in enumerate(messages):
        if message.content is None and not (message.role == "assistant" and message.tool_calls):
            raise errors.invalid(f"messages[{index}].content", "is required")
        role = message.role
        if role == "developer" and "developer" not in source:
            role = "system"  # OpenAI's newer word for it
        entry: dict[str, Any] = {"role": role, "content": message.content or ""}
        if message.name is not None:
            entry["name"] = message.name
        if message.tool_call_id is not None:
            entry["tool_call_id"] = message.tool_call_id
        if message.tool_calls:
            entry["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {
                        "name": call.function.name,
                        "arguments": _arguments(call.function.arguments),
                    },
                }
                for call in message.tool_calls
            ]
        made.append(entry)
    return made


def _arguments(text: str) -> Any:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text  # what a model wrote may be broken, and clients send it back as it is
    return found if isinstance(found, dict) else text


async def prompt(
    model: Model,
    messages: Sequence[Message],
    tools: Sequence[Tool] | None,
    options: dict[str, Any],
    *,
    add_special_tokens: bool = False,
) -> list[int]:
    """Token ids of the rendered messages. Raises 400."""
    dumped = [tool.model_dump(exclude_none=True) for tool in tools or ()]
    source = model.template.source if model.template is not None else ""
    text = await model.render(for_template(messages, source), dumped, options)
    return await model.encode("messages", text, add_special_tokens=add_special_tokens)


def _offered(request: ChatRequest, model: Model) -> list[Tool]:
    """The tools that the answer may call; empty for none. Raises 400."""
    tools, choice = request.tools or [], request.tool_choice
    if choice not in (None, "none") and not tools:
        raise errors.invalid("tool_choice", "is only allowed when tools are given")
    if tools and model.tool_format is None:
        raise errors.invalid(
            "tools", "this model's chat template has no tools, or writes calls in an unknown way"
        )
    names = [tool.function.name for tool in tools]
    if len(set(names)) < len(names):
        raise errors.invalid("tools", "two functions have the same name")
    if choice is not None and choice.startswith("="):
        tools = [tool for tool in tools if tool.function.name == choice[1:]]
        if not tools:
            raise errors.invalid("tool_choice", f"names {choice[1:]!r}, which is none of the tools")
    return [] if choice == "none" else tools


async def _grammar(request: ChatRequest, model: Model, offered: Sequence[Tool]) -> wire.Grammar | None:
    """What the answer is held to. Raises 400."""
    schema = grammars.of_format(request.response_format)
    forced = bool(offered) and request.tool_choice not in (None, "auto")
    if not forced and schema is None:
        return None
    if not offered:
        assert schema is not None
        grammar = grammars.of_schema(schema)
        await grammars.check("response_format", grammar, model.trials)
        return grammar
    assert model.tool_format is not None
    parallel = request.parallel_tool_calls is not False and not (request.tool_choice or "").startswith("=")
    grammar = grammars.of_tools(
        offered, model.tool_format, model.tokenizer, parallel=parallel, answer=None if forced else schema
    )
    await grammars.check("tools" if forced else "response_format", grammar, model.trials)
    return grammar


def router(context: Context) -> APIRouter:
    routes = APIRouter()

    @routes.post(
        "/v1/chat/completions",
        responses=documents.answers(documents.ChatCompletion, openapi.EVENTS, failures=documents.ASKED),
    )
    async def chat_completions(request: ChatRequest, http: Request) -> Response:
        model = context.serving(request.model)
        stream, include_usage = stream_options(request)
        if request.top_logprobs is not None and not request.logprobs:
            raise errors.invalid("top_logprobs", "is only allowed when logprobs is true")
        top = (request.top_logprobs or 0) if request.logprobs else None
        offered = _offered(request, model)
        token_ids = await prompt(model, request.messages, request.tools, request.chat_template_kwargs or {})
        asked = request.max_tokens if request.max_completion_tokens is None else request.max_completion_tokens
        plan = Plan(
            param="messages",
            logprobs=top,
            max_tokens=asked,
            default_tokens=None,
            grammar=await _grammar(request, model, offered),
            visible=model.markup if offered else frozenset(),
        )
        made = works(context, model, http, request, [token_ids], plan)
        limit = 1 if request.parallel_tool_calls is False else None
        parsers = (
            [ToolParser(model.tool_format, limit) for _ in made] if offered and model.tool_format else []
        )
        named = identity("chatcmpl", request.drift_resume)
        writer = ChatWriter(model, context.name, named, len(made), top, parsers, include_usage)
        return Answer(
            context,
            caller(http),
            made,
            writer,
            stream=stream,
            include_usage=include_usage,
            choices_per_prompt=len(made),
        )

    return routes
