"""The small endpoints: models, tokenize, detokenize, version, and the probes."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request
from prometheus_client import exposition
from starlette.responses import JSONResponse, Response

from drift_engine.api import errors, sampling
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
    }


def router(context: Context) -> APIRouter:
    routes = APIRouter()
    created = int(time.time())

    @routes.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_card(context, created)]}

    @routes.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        context.serving(name)
        return _card(context, created)

    @routes.post("/tokenize")
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

    @routes.post("/detokenize")
    async def detokenize(request: DetokenizeRequest) -> dict[str, Any]:
        model = context.serving(request.model)
        sampling.check_tokens("tokens", request.tokens, model.limits)
        return {"prompt": model.tokenizer.decode(request.tokens, skip_special_tokens=False)}

    @routes.get("/version")
    async def version() -> dict[str, str]:
        return {"version": drift_version()}

    @routes.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Live: this process answers. A failed node ends itself, so there is nothing else to say."""
        return {"status": "ok"}

    @routes.get("/health")
    @routes.get("/readyz")
    async def readyz() -> Response:
        """Ready: a request would be taken now."""
        health = context.health
        state: dict[str, Any] = {"status": str(health.phase)}
        if health.phase is Phase.LOADING:
            state |= {"stage": health.stage, "done": health.done, "total": health.total}
        return JSONResponse(state, 200 if health.phase is Phase.READY else 503)

    @routes.get("/metrics")
    async def metrics(http: Request) -> Response:
        encode, content_type = exposition.choose_encoder(http.headers.get("accept", ""))
        return Response(encode(context.metrics.registry), headers={"content-type": content_type})

    return routes
