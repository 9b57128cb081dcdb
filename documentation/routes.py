"""docs/reference/http.md: what can be asked of nodes, routers and the operator, and what a request may have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from aiohttp import web
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute

from documentation import bodies
from documentation.tables import code, page, table
from drift_engine.api import chat, completions, control, models, requests, setpoints
from drift_operator.doors import aggregated, plain
from drift_router import admin
from drift_router import admission as public

Route = tuple[str, str]
"""Method and path."""

NODE: dict[Route, str] = {
    ("POST", "/v1/chat/completions"): "OpenAI's chat completions, streamed or not",
    ("POST", "/v1/completions"): "OpenAI's completions, streamed or not",
    ("GET", "/v1/models"): "the model that is served; `max_model_len` is its context in tokens",
    ("GET", "/v1/models/{name:path}"): "the same, by its name",
    ("POST", "/tokenize"): "the tokens of a prompt or of messages, as vLLM tells them",
    ("POST", "/detokenize"): "the text of tokens, as vLLM tells it",
    ("GET", "/version"): "the version",
    ("GET", "/server_info"): "the model's name, where SGLang's router looks for it",
    ("GET", "/healthz"): "200: the process answers",
    ("GET", "/readyz"): "200: a request would be taken now; 503 with how far loading is, or that it drains",
    ("GET", "/health"): "the same under vLLM's name",
    ("GET", "/metrics"): "[metrics](metrics.md#a-node)",
}
NODE_CONTROL: dict[Route, str] = {
    ("GET", "/control/v1/report"): "load, split, rates, what passes cost, the promise",
    (
        "PUT",
        "/control/v1/split",
    ): "bounds of the split and the node's weight, for a time; older epochs get 409",
    ("PUT", "/control/v1/targets"): "another promise, also for requests that run",
    (
        "POST",
        "/control/v1/drain",
    ): "no new requests; answers when those in flight have ended, or after `timeout_s`",
    ("POST", "/control/v1/flush"): "forget cached prefixes that no request uses",
    ("GET", "/kv/v1/state"): "all that the prefix cache holds, with the number of the last event",
    ("GET", "/kv/v1/events"): "its events from `after` on, a JSON object a line, without end",
}
ROUTER_ADMIN: dict[Route, str] = {
    ("GET", "/openapi.json"): "all of this for machines",
    ("GET", "/healthz"): "200: the process answers",
    ("GET", "/readyz"): "200: some node may be sent requests; 503 with the reason",
    ("GET", "/metrics"): "[metrics](metrics.md#a-router)",
    ("GET", "/control/v1/nodes"): "every node as the router sees it",
    ("PUT", "/control/v1/nodes"): "another list of nodes; older epochs get 409",
    ("GET", "/control/v1/promise"): "the promise that holds",
    ("PUT", "/control/v1/promise"): "another promise, for requests from then on",
    (
        "GET",
        "/control/v1/report",
    ): "rates and attainment over the last minute, exact totals since the promise began",
}
OPERATOR: dict[Route, str] = {
    ("GET", "/openapi.json"): "all of this for machines, and the console's requests where it is served",
    ("GET", "/healthz"): "200: its loops turn; 500 with those that don't",
    (
        "GET",
        "/readyz",
    ): "200: it does its work; 503 with what is missing, as in an operator that waits for the Lease",
    ("GET", "/metrics"): "[metrics](metrics.md#the-operator)",
    ("GET", "/v1/services"): "all services in short",
    ("GET", "/v1/services/{namespace}/{name}"): "one service with its figures, nodes and decisions",
    ("GET", "/v1/services/{namespace}/{name}/pressure"): "for KEDA; 503 where it is unknown",
}
EXTERNAL_METRICS: dict[Route, str] = {
    **{("GET", path): "200: the process answers" for path in aggregated.HEALTH},
    ("GET", "/apis"): "discovery",
    ("GET", "/apis/external.metrics.k8s.io"): "discovery",
    ("GET", "/apis/external.metrics.k8s.io/v1beta1"): "discovery",
    ("GET", "/openapi/v2"): "an empty document, as API servers ask for one",
    ("GET", "/openapi/v3"): "the same",
    (
        "GET",
        "/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{metric}",
    ): "one metric of services by `labelSelector`; 404 where it is unknown, never zero",
}

ERRORS = """\
Errors have OpenAI's shape, `{"error": {"message", "type", "param", "code"}}`, and name the field, the value
and the limit. 400: a field or a prompt can't be used. 401: no accepted API key. 404: no such model or route.
408: the body did not come in time. 413: it is too large. 429, with `Retry-After`: full, or no room under the
promise. 502 and 504, from a router: a node broke off, or was silent for too long. 503, with `Retry-After`:
loading, draining, or no node.
"""

CLIENTS = f"""\
## For clients

A node and a router answer the same to clients. A router passes on `/v1/*` and
{", ".join(code(path.decode()) for path in sorted(public.PASSED))}, and answers `/health`, `/healthz` and `/readyz`
itself; its metrics are on its admin port. `GET /openapi.json` of a node has everything for machines. Where API keys
are set, `Authorization: Bearer KEY` is needed for `/v1/*`, `/tokenize` and `/detokenize`.

{ERRORS}"""

FIELDS = """\
Types are strict: `"5"` is no number. `null` is the same as a field that is left out. **A field that is not in
these tables is refused** with 400, so that nothing is silently without effect, except those that are taken
and ignored: they have no meaning for one model on one node. What an object may have is in the node's
`/openapi.json`.
"""

TRUSTED = "[trusted keys](../routing.md#sessions-targets-priorities-explanations) only"
HEADERS = [
    ("`x-request-id`", "told back and logged; made where it is missing"),
    ("`x-drift-slo-ttft-ms`, `x-drift-slo-tbt-ms`", f"targets of this request; {TRUSTED}"),
    ("`x-drift-priority`", f"-1000 to 1000, higher is served first; {TRUSTED}"),
    ("`x-drift-explain: 1`", f"asks for each node's score, in the answer's `x-drift-decision`; {TRUSTED}"),
]


def render() -> str:
    context = cast("Any", None)  # routes are listed, none is called
    api = (models.router(context), completions.router(context), chat.router(context))
    node = [route for part in api for route in _fastapi(part)]
    doors = plain.create_app(context, context, context, lambda: None)
    return page(
        "HTTP",
        "the routes and request types of `drift_engine.api`, `drift_router.admin` and `drift_operator.doors`",
        CLIENTS,
        _routes(node, NODE),
        "### Chat completions and completions\n",
        FIELDS,
        "`POST /v1/chat/completions`:\n",
        bodies.fields(requests.ChatRequest),
        "Messages hold text: a content part of any other type than `text` is refused. `POST /v1/completions`:\n",
        bodies.fields(requests.CompletionRequest),
        "### Tokens\n",
        "`POST /tokenize` takes one of `prompt` and `messages`:\n",
        bodies.fields(requests.TokenizeRequest, like="vLLM"),
        "`POST /detokenize`:\n",
        bodies.fields(requests.DetokenizeRequest, like="vLLM"),
        "### Headers\n",
        table(("header", "meaning"), HEADERS),
        "## Control of a node\n",
        "Port 8001 on a cluster. All of it needs the control token, as `Authorization: Bearer TOKEN` or "
        "`x-drift-token`.\n",
        _routes(_fastapi(control.routes(context)), NODE_CONTROL),
        "`PUT /control/v1/split`, with one of `decode_sms` and `bounds` or neither:\n",
        table(("field", "type"), _types(setpoints.SetPoint)),
        "`PUT /control/v1/targets`:\n",
        table(("field", "type"), _types(control.TargetsRequest)),
        "## Admin port of a router\n",
        "Port 8081 on a cluster. What is below `/control` needs the control token.\n",
        _routes(_aiohttp(admin.create_app(context, "")), ROUTER_ADMIN),
        "## The operator\n",
        "Port 8080 of the Service `drift-operator`. Everybody whom NetworkPolicies let in may ask. The console's own "
        "requests are [there](../console.md#as-data).\n",
        _routes(_aiohttp(doors), OPERATOR),
        "With `externalMetrics.enabled`, behind the API server, which says who asks:\n",
        _routes(_aiohttp(aggregated.create_app(context, context)), EXTERNAL_METRICS),
    )


def _routes(found: Iterable[Route], told: dict[Route, str]) -> str:
    """Raises ValueError where a route is not told of, or one that is told of is not there."""
    if odd := sorted(set(found) ^ set(told)):
        raise ValueError(f"routes without words, or words without a route: {odd}")
    return table(
        ("request", "what for"), [(code(f"{method} {path}"), text) for (method, path), text in told.items()]
    )


def _fastapi(part: APIRouter | FastAPI) -> list[Route]:
    routes = [route for route in part.routes if isinstance(route, APIRoute)]
    return [(method, route.path) for route in routes for method in route.methods or ()]


def _aiohttp(app: web.Application) -> list[Route]:
    resources = [(route.method, route.resource) for route in app.router.routes()]
    return [(method, found.canonical) for method, found in resources if found and method != "HEAD"]


def _types(body: type[requests.Body]) -> list[tuple[str, str]]:
    schema = body.model_json_schema()
    fields = schema["properties"].items()
    return [(code(name), bodies.kind(field, schema.get("$defs", {}))) for name, field in fields]
