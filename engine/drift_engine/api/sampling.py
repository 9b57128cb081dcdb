"""Checked request fields to the core's terms.

Bounds of single fields are in `requests`; here are those that depend on the model: token ids within the
vocabulary, and prompt plus answer within the context.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Sequence

import msgspec

from drift_engine import wire
from drift_engine.api import errors
from drift_engine.api.requests import Generation

SEEDS = 2**63

COLDEST = 1e-5
"""Below it a temperature means greedy: float32 logits divided by less overflow."""

_LONGEST = "This model's maximum context length is"
"""OpenAI's words, and vLLM's: LiteLLM and many agents know by them that they should shorten their prompt."""


@dataclasses.dataclass(frozen=True)
class ModelLimits:
    vocab_size: int
    context_tokens: int


def check_tokens(param: str, token_ids: Sequence[int], limits: ModelLimits) -> None:
    """Raises 400 for an id outside the vocabulary."""
    if token_ids and max(token_ids) >= limits.vocab_size:
        bad = next(i for i in token_ids if i >= limits.vocab_size)
        raise errors.invalid(
            param, f"{bad} is not a token of this model, whose ids are below {limits.vocab_size}"
        )


def answer_tokens(
    param: str, prompt_tokens: int, asked: int | None, default: int | None, limits: ModelLimits
) -> int:
    """How long the answer may be. Raises 400 when prompt and answer don't fit the context; `param` is the prompt's
    field."""
    context = limits.context_tokens
    if prompt_tokens == 0:
        raise errors.invalid(param, "has no tokens")
    if prompt_tokens >= context:
        raise too_long(
            param,
            f"{_LONGEST} {context} tokens, but the prompt has {prompt_tokens}, "
            "and at least 1 more is needed for the answer",
        )
    if asked is not None and prompt_tokens + asked > context:
        raise too_long(
            param,
            f"{_LONGEST} {context} tokens, but the request needs {prompt_tokens + asked}: "
            f"{prompt_tokens} of the prompt and {asked} of max_tokens",
        )
    room = context - prompt_tokens
    return asked if asked is not None else min(default or room, room)


def too_long(param: str, message: str) -> errors.ApiError:
    return errors.ApiError(400, message, param=param, code="context_length_exceeded")


def to_wire(
    request: Generation,
    *,
    max_tokens: int,
    logprobs: int | None,
    grammar: wire.Grammar | None,
    limits: ModelLimits,
) -> wire.Sampling:
    """Raises 400. The seed is that of the first choice; see `for_choice`."""
    stop_token_ids = request.stop_token_ids or []
    check_tokens("stop_token_ids", stop_token_ids, limits)
    min_tokens = request.min_tokens or 0
    if min_tokens > max_tokens:
        raise errors.invalid("min_tokens", f"{min_tokens} is above max_tokens, which is {max_tokens}")
    return wire.Sampling(
        max_tokens=max_tokens,
        min_tokens=min_tokens,
        temperature=_temperature(_or(request.temperature, 1.0)),
        top_p=_or(request.top_p, 1.0),
        top_k=max(request.top_k or 0, 0),
        min_p=_or(request.min_p, 0.0),
        presence_penalty=_or(request.presence_penalty, 0.0),
        frequency_penalty=_or(request.frequency_penalty, 0.0),
        repetition_penalty=_or(request.repetition_penalty, 1.0),
        seed=secrets.randbelow(SEEDS) if request.seed is None else request.seed % SEEDS,
        stop_token_ids=tuple(stop_token_ids),
        ignore_eos=bool(request.ignore_eos),
        logprobs=logprobs,
        logit_bias=_biases(request.logit_bias or {}, limits),
        grammar=grammar,
    )


def for_choice(sampling: wire.Sampling, index: int) -> wire.Sampling:
    """Choices of one prompt differ by their seed alone."""
    if index == 0:
        return sampling
    return msgspec.structs.replace(sampling, seed=(sampling.seed + index) % SEEDS)


def _temperature(asked: float) -> float:
    return asked if asked >= COLDEST else 0.0


def _or(value: float | None, default: float) -> float:
    return default if value is None else float(value)


def _biases(biases: dict[str, float], limits: ModelLimits) -> dict[int, float]:
    try:
        by_id = {int(token): float(bias) for token, bias in biases.items()}
    except ValueError as error:
        raise errors.invalid("logit_bias", "its keys must be token ids") from error
    if any(token < 0 for token in by_id):
        raise errors.invalid("logit_bias", "its keys must be token ids")
    check_tokens("logit_bias", list(by_id), limits)
    return by_id
