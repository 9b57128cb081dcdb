"""The public application: OpenAI-compatible endpoints, probes and metrics, behind the gate."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.types import ASGIApp

from drift_engine.api import chat, completions, errors, models
from drift_engine.api.context import Context
from drift_engine.api.documents import Documented
from drift_engine.api.gate import Gate


def create_app(context: Context) -> ASGIApp:
    """Complete from the start: while the model loads, the gate answers 503."""
    return Gate(routes(context), context)


def routes(context: Context) -> FastAPI:
    """What is behind the gate."""
    # the interactive pages would load scripts from elsewhere; /openapi.json is enough
    app = Documented(title="Drift", docs_url=None, redoc_url=None)
    errors.install(app)
    for part in (models, completions, chat):
        app.include_router(part.router(context))
    return app
