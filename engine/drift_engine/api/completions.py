"""POST /v1/completions."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from drift_engine import openapi
from drift_engine.api import documents, errors, logprobs, sampling
from drift_engine.api.answers import Answer, event
from drift_engine.api.callers import caller
from drift_engine.api.choices import Delta
from drift_engine.api.context import Context, Model
from drift_engine.api.requests import CompletionRequest
from drift_engine.api.submitting import Identity, Plan, identity, stream_options, works

_DEFAULT_TOKENS = 16
"""OpenAI's default of max_tokens here (chat has none)."""


class CompletionWriter:
    """Answers of type text_completion."""

    def __init__(
        self,
        model: Model,
        name: str,
        identity: Identity,
        echoes: list[str],
        top: int | None,
        include_usage: bool,
    ) -> None:
        self._tokenizer = model.tokenizer
        self._top = top
        self._echoes = echoes
        self._head = {
            "id": identity.id,
            "object": "text_completion",
            "created": identity.created,
            "model": name,
        }
        self._usage = {"usage": None} if include_usage else {}
        self._begun = [False] * len(echoes)
        self._offsets = [len(echo) for echo in echoes]
        self._collected = [Delta() for _ in echoes]

    def events(self, choice: int, delta: Delta) -> bytes:
        if not (delta.text or delta.finish or (self._top is not None and delta.token_ids)):
            return b""
        text = delta.text
        if not self._begun[choice]:
            self._begun[choice] = True
            text = self._echoes[choice] + text
        return event({**self._head, "choices": [self._choice(choice, text, delta)], **self._usage})

    def resume(self, choice: int, delta: Delta) -> bytes:
        shown = bool(delta.text) or (self._top is not None and bool(delta.token_ids))
        self._begun[choice] = self._begun[choice] or shown
        if self._top is not None:
            self._offsets[choice] += sum(len(logprobs.text(self._tokenizer, i)) for i in delta.token_ids)
        if delta.finish is None:
            return b""
        end = self._choice(choice, "", Delta(finish=delta.finish))
        return event({**self._head, "choices": [end], **self._usage})

    def last_event(self, usage: dict[str, Any]) -> bytes:
        return event({**self._head, "choices": [], "usage": usage})

    def add(self, choice: int, delta: Delta) -> None:
        collected = self._collected[choice]
        collected.text += delta.text
        collected.token_ids += delta.token_ids
        collected.logprobs += delta.logprobs
        collected.finish = delta.finish or collected.finish

    def body(self, usage: dict[str, Any]) -> bytes:
        choices = [
            self._choice(index, self._echoes[index] + delta.text, delta)
            for index, delta in enumerate(self._collected)
        ]
        return msgspec.json.encode({**self._head, "choices": choices, "usage": usage})

    def _choice(self, choice: int, text: str, delta: Delta) -> dict[str, Any]:
        found = None
        if self._top is not None:
            found, self._offsets[choice] = logprobs.completion(
                self._tokenizer, delta.token_ids, delta.logprobs, self._top, self._offsets[choice]
            )
        return {"index": choice, "text": text, "logprobs": found, "finish_reason": delta.finish}


def router(context: Context) -> APIRouter:
    routes = APIRouter()

    @routes.post(
        "/v1/completions",
        responses=documents.answers(documents.Completion, openapi.EVENTS, failures=documents.ASKED),
    )
    async def completions(request: CompletionRequest, http: Request) -> Response:
        model = context.serving(request.model)
        n = request.n or 1
        if request.suffix:
            raise errors.invalid("suffix", "is not supported: these models are not trained to fill in text")
        if request.best_of not in (None, n):
            raise errors.invalid("best_of", f"{request.best_of} must equal n, which is {n}")
        if request.echo and request.logprobs is not None:
            raise errors.invalid("echo", "can't be combined with logprobs: prompts have no log probabilities")
        prompts, echoes = [], []
        for prompt in request.prompt:
            if isinstance(prompt, str):
                prompts.append(await model.encode("prompt", prompt, add_special_tokens=True))
            else:
                sampling.check_tokens("prompt", prompt, model.limits)
                prompts.append(prompt)
            if request.echo:
                text = prompt if isinstance(prompt, str) else model.tokenizer.decode(prompt)
                echoes += [text] * n
        stream, include_usage = stream_options(request)
        plan = Plan(
            param="prompt",
            logprobs=request.logprobs,
            max_tokens=request.max_tokens,
            default_tokens=_DEFAULT_TOKENS,
            continues=True,
        )
        made = works(context, model, http, request, prompts, plan)
        writer = CompletionWriter(
            model,
            context.name,
            identity("cmpl", request.drift_resume),
            echoes or [""] * len(made),
            request.logprobs,
            include_usage,
        )
        return Answer(
            context,
            caller(http),
            made,
            writer,
            stream=stream,
            include_usage=include_usage,
            choices_per_prompt=n,
        )

    return routes
