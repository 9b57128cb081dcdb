"""Log probabilities in the two shapes of OpenAI's API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from drift_engine import wire
from drift_engine.api.choices import Delta
from drift_engine.text.tokenizer import Tokenizer

_FLOOR = -9999.0
"""What OpenAI writes for a probability of zero; JSON has no infinity."""


def text(tokenizer: Tokenizer, token_id: int) -> str:
    """A token by itself, as the older shape names it."""
    return tokenizer.token_bytes(token_id).decode(errors="replace")


def _entry(tokenizer: Tokenizer, token_id: int, logprob: float) -> dict[str, Any]:
    raw = tokenizer.token_bytes(token_id)
    return {"token": raw.decode(errors="replace"), "logprob": max(logprob, _FLOOR), "bytes": list(raw)}


def chat(tokenizer: Tokenizer, delta: Delta, top: int) -> list[dict[str, Any]]:
    """`content` of a chat choice's logprobs, with the `top` likeliest tokens each."""
    entries = []
    for token_id, found in zip(delta.token_ids, delta.logprobs, strict=True):
        likeliest = zip(found.top_ids[:top], found.top_logprobs[:top], strict=True)
        entry = _entry(tokenizer, token_id, found.logprob)
        entry["top_logprobs"] = [_entry(tokenizer, other, logprob) for other, logprob in likeliest]
        entries.append(entry)
    return entries


def completion(
    tokenizer: Tokenizer,
    token_ids: Sequence[int],
    logprobs: Sequence[wire.TokenLogprobs],
    top: int,
    offset: int,
) -> tuple[dict[str, Any], int]:
    """The older shape: parallel lists. `offset` is where the first token begins in the text; the new one returns."""
    tokens = [text(tokenizer, token_id) for token_id in token_ids]
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token)
    likeliest = []
    for token, found in zip(tokens, logprobs, strict=True):
        best = {
            text(tokenizer, other): max(logprob, _FLOOR)
            for other, logprob in zip(found.top_ids[:top], found.top_logprobs[:top], strict=True)
        }
        likeliest.append(best | {token: max(found.logprob, _FLOOR)})
    return {
        "tokens": tokens,
        "token_logprobs": [max(found.logprob, _FLOOR) for found in logprobs],
        "top_logprobs": likeliest if top else None,
        "text_offset": offsets,
    }, offset
