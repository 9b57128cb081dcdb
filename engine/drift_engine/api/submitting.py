"""Prompts and checked fields to requests for the core: what /v1/completions and /v1/chat/completions share.

Also decides whose request it is. Targets, priority and tenant come from headers, and only from a router
that shows the control token; others' headers are ignored. Clients with different API keys get different
salts, so that they do not share cached prefixes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import secrets
from collections.abc import Sequence

from starlette.requests import Request

from drift_engine import wire
from drift_engine.api import errors, sampling
from drift_engine.api.admission import Ticket
from drift_engine.api.answers import Work
from drift_engine.api.choices import Choice
from drift_engine.api.context import Context, Model
from drift_engine.api.metrics import Meter
from drift_engine.api.requests import Generation
from drift_engine.text.detokenizer import detokenizer

_PRIORITY_LIMIT = 1000


@dataclasses.dataclass(frozen=True)
class Caller:
    """Whose request it is and how it shall be served; made by the gate, kept on the request's state."""

    ticket: Ticket
    arrival_s: float
    salt: str
    trusted: bool


def caller(request: Request) -> Caller:
    found = request.scope["state"]["caller"]
    assert isinstance(found, Caller)
    return found


def salt(key_digest: str, tenant: str) -> str:
    """Short and not invertible: it reaches cache keys and events."""
    if not key_digest and not tenant:
        return ""
    return hashlib.sha256(f"{key_digest}/{tenant}".encode()).hexdigest()[:16]


def slo(request: Request, trusted: bool) -> wire.Slo:
    """Raises 400 for a header of a trusted router that is no positive number."""
    if not trusted:
        return wire.Slo()
    return wire.Slo(
        ttft_ms=_positive(request, "x-drift-slo-ttft-ms"), tbt_ms=_positive(request, "x-drift-slo-tbt-ms")
    )


def _positive(request: Request, name: str) -> float | None:
    text = request.headers.get(name)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (0 < value < math.inf):
        raise errors.invalid(name, f"must be a positive number of milliseconds, not {errors.shown(text)}")
    return value


def priority(request: Request, trusted: bool) -> int:
    text = request.headers.get("x-drift-priority")
    if text is None or not trusted:
        return 0
    try:
        value = int(text)
    except ValueError:
        value = _PRIORITY_LIMIT + 1
    if abs(value) > _PRIORITY_LIMIT:
        raise errors.invalid(
            "x-drift-priority", f"must be an integer within +-{_PRIORITY_LIMIT}, not {errors.shown(text)}"
        )
    return value


@dataclasses.dataclass(frozen=True)
class Plan:
    """What differs between the endpoints; `param` names the prompt's field."""

    param: str
    logprobs: int | None
    max_tokens: int | None
    default_tokens: int | None
    grammar: wire.Grammar | None = None
    visible: frozenset[int] = frozenset()
    continues: bool = False
    """The answer continues the prompt's text, rather than following a template's turn."""


def works(
    context: Context,
    model: Model,
    http: Request,
    request: Generation,
    prompts: Sequence[list[int]],
    plan: Plan,
) -> list[Work]:
    """All requests to the core, choices of one prompt together. Raises 400."""
    who = caller(http)
    targets = slo(http, who.trusted)
    rank = priority(http, who.trusted)
    made: list[Work] = []
    for prompt in prompts:
        sampling.check_tokens(plan.param, prompt, model.limits)
        max_tokens = sampling.answer_tokens(
            plan.param, len(prompt), plan.max_tokens, plan.default_tokens, model.limits
        )
        drawn = sampling.to_wire(
            request, max_tokens=max_tokens, logprobs=plan.logprobs, grammar=plan.grammar, limits=model.limits
        )
        for index in range(request.n or 1):
            submit = wire.Submit(
                request_id=secrets.token_hex(12),
                token_ids=prompt,
                sampling=sampling.for_choice(drawn, index),
                arrival_s=who.arrival_s,
                slo=targets,
                priority=rank,
                salt=who.salt,
                role=context.options.role,
            )
            text = detokenizer(
                model.tokenizer, context=prompt if plan.continues else (), visible=plan.visible
            )
            choice = Choice(text, request.stop, drawn.min_tokens)
            made.append(Work(submit, choice, Meter(context.metrics, who.arrival_s, len(prompt), targets)))
    return made


def stream_options(request: Generation) -> tuple[bool, bool]:
    """(streamed, with usage). Raises 400 for options without a stream."""
    if request.stream_options is not None and not request.stream:
        raise errors.invalid("stream_options", "is only allowed when stream is true")
    return bool(request.stream), bool(request.stream_options and request.stream_options.include_usage)
