"""Every error that a client sees, in OpenAI's shape: {"error": {"message", "type", "param", "code"}}.

Raise `ApiError` (or one of the makers below) anywhere before an answer has begun; `install` makes the app
answer with it, and with the same shape for what FastAPI and Starlette raise themselves.
"""

from __future__ import annotations

import http
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

log = logging.getLogger(__name__)

RETRY_AFTER_S = 1
"""A queue of decodes moves every few hundred milliseconds; clients that wait a second find room."""

_SHOWN_CHARS = 60
"""Values are quoted in messages up to this length: enough to recognise a mistake, not enough to echo a prompt."""


class ApiError(HTTPException):
    """An answer other than success. An HTTPException, since FastAPI lets only those through while it reads a body."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, dict(headers or {}))
        self.status = status
        self.message = message
        self.param = param
        self.code = code

    def body(self) -> bytes:
        return msgspec.json.encode(
            {
                "error": {
                    "message": self.message,
                    "type": _type(self.status),
                    "param": self.param,
                    "code": self.code,
                }
            }
        )

    def response(self) -> Response:
        return Response(self.body(), self.status, self.headers, "application/json")


def _type(status: int) -> str:
    if status == http.HTTPStatus.TOO_MANY_REQUESTS:
        return "rate_limit_error"
    if status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
        return "server_error"
    return "invalid_request_error"


def invalid(param: str | None, message: str, code: str | None = None) -> ApiError:
    """400: the field `param` can't be used."""
    return ApiError(400, f"{param}: {message}" if param else message, param=param, code=code)


def unavailable(reason: str) -> ApiError:
    return ApiError(503, reason, code="unavailable", headers={"retry-after": str(RETRY_AFTER_S)})


def full(limit: int) -> ApiError:
    return ApiError(
        429,
        f"the node is full: {limit} requests are running or waiting, which is its limit; try again shortly",
        code="rate_limit_exceeded",
        headers={"retry-after": str(RETRY_AFTER_S)},
    )


def too_large(limit_bytes: int) -> ApiError:
    return ApiError(
        413, f"the request body is larger than the limit of {limit_bytes} bytes", code="too_large"
    )


def failed(reason: str) -> ApiError:
    """500: the node gave the request up."""
    return ApiError(500, reason, code="engine_error")


def shown(value: object) -> str:
    """A client's value for a message, cut short."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."


def path(location: Sequence[str | int]) -> str:
    """('messages', 0, 'content') -> messages[0].content"""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).removeprefix(".")


def from_validation(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """The first of pydantic's errors as one line that names field, value and limit."""
    error = errors[0]
    location = tuple(error["loc"])
    if location[:1] == ("body",):
        location = location[1:]
    kind, context, value = error["type"], error.get("ctx") or {}, error.get("input")
    if kind == "json_invalid":
        return ApiError(400, f"the body is not valid JSON: {context.get('error')} at byte {location[-1]}")
    if not location:
        if kind == "missing" or value is None:
            return ApiError(400, "the request has no body; it must be a JSON object")
        return ApiError(400, "the body must be a JSON object, sent with Content-Type: application/json")
    return invalid(path(location), _explain(kind, context, value, error["msg"]), code=_CODES.get(kind))


_CODES = {"missing": "missing_required_parameter", "extra_forbidden": "unknown_parameter"}

_LIMITS = {
    "greater_than_equal": ("ge", "is below the minimum"),
    "greater_than": ("gt", "must be above"),
    "less_than_equal": ("le", "is above the maximum"),
    "less_than": ("lt", "must be below"),
}

_KINDS = {
    "string_type": "a string",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "finite_number": "a finite number",
}


def _explain(kind: str, context: Mapping[str, Any], value: object, fallback: str) -> str:
    if kind in _LIMITS:
        name, words = _LIMITS[kind]
        limit = context[name]
        return f"{shown(value)} {words} {int(limit) if limit == int(limit) else limit}"
    if kind in _KINDS:
        return f"must be {_KINDS[kind]}, not {shown(value)}"
    match kind:
        case "missing":
            return "is required"
        case "extra_forbidden":
            return "unknown field"
        case "literal_error":
            return f"must be {context['expected']}, not {shown(value)}"
        case "too_short":
            return f"must have at least {context['min_length']} items, not {context['actual_length']}"
        case "too_long":
            return f"must have at most {context['max_length']} items, not {context['actual_length']}"
        case _:
            return fallback


def install(app: FastAPI) -> None:
    """Answers with our shape for every exception of the app."""

    async def api_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        return error.response()

    async def validation(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return from_validation(error.errors()).response()

    async def http_exception(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        status, message = error.status_code, str(error.detail)
        if status == http.HTTPStatus.NOT_FOUND:
            message = f"no such route: {request.method} {request.url.path}"
        elif status == http.HTTPStatus.METHOD_NOT_ALLOWED:
            message = f"{request.url.path} does not take {request.method}"
        elif status == http.HTTPStatus.BAD_REQUEST:  # whatever else FastAPI could not read a body for
            message = "the body is not valid JSON: it must be UTF-8, nested less than 1,000 levels deep"
        return ApiError(status, message, headers=error.headers).response()

    async def unexpected(request: Request, error: Exception) -> Response:
        log.error("unexpected error in %s: %s", request.url.path, type(error).__name__)
        return failed("internal error; the node's log has the details").response()

    app.add_exception_handler(ApiError, api_error)
    app.add_exception_handler(RequestValidationError, validation)
    app.add_exception_handler(HTTPException, http_exception)
    app.add_exception_handler(Exception, unexpected)
