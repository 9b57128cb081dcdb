"""The small endpoints: models, tokenize, detokenize, version, and the probes."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter
from prometheus_client import exposition
from starlette.responses import JSONResponse, Response

from drift_engine import openapi
from drift_engine.api import documents, errors, sampling
from drift_engine.api.chat import prompt
from drift_engine.api.context import Context
from drift_engine.api.requests import DetokenizeRequest, TokenizeRequest
from drift_engine.node.health import Phase
from drift_engine.version import drift_version


def _card(context: Context, created: int) -> dict[str, Any]:
    model = context.serving(None)
    return {
        "id": context.name,
        "object": "model",
        "created": created,
        "owned_by": "drift",
        "root": context.options.model,
        "max_model_len": model.limits.context_tokens,
        "mode": str(model.ready.mode),
    }


def router(context: Context) -> APIRouter:
    routes = APIRouter()
    created = int(time.time())
    readiness = {
        **documents.answers(documents.Readiness),
        503: openapi.answer(503, documents.Readiness),
    }

    @routes.get("/v1/models", responses=documents.answers(documents.Cards, failures=documents.SERVED))
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_card(context, created)]}

    @routes.get(
        "/v1/models/{name:path}", responses=documents.answers(documents.Card, failures=documents.SERVED)
    )
    async def model(name: str) -> dict[str, Any]:
        context.serving(name)
        return _card(context, created)

    @routes.post("/tokenize", responses=documents.answers(documents.Tokens, failures=documents.ASKED))
    async def tokenize(request: TokenizeRequest) -> dict[str, Any]:
        model = context.serving(request.model)
        if (request.prompt is None) == (request.messages is None):
            raise errors.invalid("prompt", "exactly one of prompt and messages is required")
        if request.prompt is not None:
            special = request.add_special_tokens is not False
            tokens = await model.encode("prompt", request.prompt, add_special_tokens=special)
        else:
            options = {
                "add_generation_prompt": request.add_generation_prompt,
                **(request.chat_template_kwargs or {}),
            }
            special = bool(request.add_special_tokens)
            tokens = await prompt(
                model, request.messages or [], request.tools, options, add_special_tokens=special
            )
        return {
            "count": len(tokens),
            "max_model_len": model.limits.context_tokens,
            "tokens": tokens,
            "token_strs": list(map(model.tokenizer.token, tokens)) if request.return_token_strs else None,
        }

    @routes.post("/detokenize", responses=documents.answers(documents.Text, failures=documents.ASKED))
    async def detokenize(request: DetokenizeRequest) -> dict[str, Any]:
        model = context.serving(request.model)
        sampling.check_tokens("tokens", request.tokens, model.limits)
        return {"prompt": model.tokenizer.decode(request.tokens, skip_special_tokens=False)}

    @routes.get("/version", responses=documents.answers(documents.Version))
    async def version() -> dict[str, str]:
        return {"version": drift_version()}

    @routes.get("/server_info", responses=documents.answers(documents.ServerInfo))
    async def server_info() -> dict[str, str]:
        return {"served_model_name": context.name, "version": drift_version()}

    @routes.get("/healthz", responses=documents.answers(documents.Status))
    async def healthz() -> dict[str, str]:
        """Live: this process answers. A failed node ends itself, so there is nothing else to say."""
        return {"status": "ok"}

    @routes.get("/health", responses=readiness)
    @routes.get("/readyz", responses=readiness)
    async def readyz() -> Response:
        """Ready: a request would be taken now."""
        health = context.health
        state: dict[str, Any] = {"status": str(health.phase)}
        if health.phase is Phase.LOADING:
            state |= {"stage": health.stage, "done": health.done, "total": health.total}
        return JSONResponse(state, 200 if health.phase is Phase.READY else 503)

    @routes.get("/metrics", response_class=Response, responses=documents.answers("text/plain"))
    async def metrics() -> Response:
        # Always this form: in OpenMetrics' the library makes `vllm_` of `vllm:`, and no dashboard finds it.
        text = exposition.generate_latest(context.metrics.registry)
        return Response(text, headers={"content-type": exposition.CONTENT_TYPE_PLAIN_0_0_4})

    return routes
