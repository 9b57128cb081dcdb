"""Prompts and checked fields to requests for the core: what /v1/completions and /v1/chat/completions share.

Targets and priority come from headers, and only from a router that shows the control token; others' headers are
ignored. So does an answer to go on with (`Resume`), which anybody else is refused.
"""

from __future__ import annotations

import dataclasses
import math
import secrets
import time
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from starlette.requests import Request

from drift_engine import wire
from drift_engine.api import errors, sampling
from drift_engine.api.answers import Work
from drift_engine.api.callers import caller
from drift_engine.api.choices import Choice
from drift_engine.api.context import Context, Model
from drift_engine.api.metrics import Meter
from drift_engine.api.requests import Generation, Resume
from drift_engine.text.detokenizer import detokenizer

_PRIORITY_LIMIT = 1000
_RESUME = "drift_resume"


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


class Identity(NamedTuple):
    """What every chunk of an answer says of it."""

    id: str
    created: int


def identity(kind: str, resume: Resume | None) -> Identity:
    """Of a new answer, or of the one that goes on."""
    if resume is not None:
        return Identity(resume.id, resume.created)
    return Identity(f"{kind}-{secrets.token_hex(12)}", int(time.time()))


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
    resume = request.drift_resume
    if resume is not None:
        _check_resume(request, prompts, who.trusted)
        sampling.check_tokens(f"{_RESUME}.token_ids", resume.token_ids, model.limits)
    made: list[Work] = []
    for prompt in prompts:
        sampling.check_tokens(plan.param, prompt, model.limits)
        max_tokens = sampling.answer_tokens(
            plan.param, len(prompt), plan.max_tokens, plan.default_tokens, model.limits
        )
        drawn = sampling.to_wire(
            request, max_tokens=max_tokens, logprobs=plan.logprobs, grammar=plan.grammar, limits=model.limits
        )
        if resume is not None:
            _check_length(resume.token_ids, max_tokens)
            drawn = msgspec.structs.replace(drawn, seed=resume.seed)
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
                drawn_token_ids=resume.token_ids if resume is not None else [],
            )
            trace = who.trace.choice(submit) if who.trace is not None else None
            if trace is not None:
                submit = msgspec.structs.replace(submit, traced=True)
            text = detokenizer(
                model.tokenizer, context=prompt if plan.continues else (), visible=plan.visible
            )
            choice = Choice(text, request.stop, drawn.min_tokens)
            meter = Meter(
                context.metrics, who.arrival_s, len(prompt), targets, resumed=bool(submit.drawn_token_ids)
            )
            made.append(Work(submit, choice, meter, trace))
    return made


def _check_resume(request: Generation, prompts: Sequence[list[int]], trusted: bool) -> None:
    if not trusted:
        raise errors.invalid(_RESUME, "is only allowed with the control token, in x-drift-token")
    if not request.stream:
        raise errors.invalid(_RESUME, "is only allowed when stream is true")
    if (request.n or 1) > 1 or len(prompts) > 1:
        raise errors.invalid(
            _RESUME, f"is only allowed with one choice, not {(request.n or 1) * len(prompts)}"
        )


def _check_length(token_ids: Sequence[int], max_tokens: int) -> None:
    if len(token_ids) > max_tokens:
        raise errors.invalid(
            f"{_RESUME}.token_ids",
            f"has {len(token_ids)} tokens, more than max_tokens, which is {max_tokens}",
        )


def stream_options(request: Generation) -> tuple[bool, bool]:
    """(streamed, with usage). Raises 400 for options without a stream."""
    if request.stream_options is not None and not request.stream:
        raise errors.invalid("stream_options", "is only allowed when stream is true")
    return bool(request.stream), bool(request.stream_options and request.stream_options.include_usage)
