"""The few fields of a generating request that routing needs; everything else of the body is the node's affair.

The prompt is taken as the JSON text that the client wrote: what two turns of a conversation have in common, they have
in common there too, and nothing has to be decoded.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from drift_engine import wire
from drift_router.dataplane import refusals

GENERATING = frozenset({b"/v1/chat/completions", b"/v1/completions"})


class _Body(msgspec.Struct):
    model: str | None = None
    messages: msgspec.Raw = msgspec.Raw()
    prompt: msgspec.Raw = msgspec.Raw()
    tools: msgspec.Raw = msgspec.Raw()
    stream: bool | None = None
    n: int | None = None
    drift_resume: msgspec.Raw = msgspec.Raw()


class Prompt(msgspec.Struct, frozen=True, gc=False):
    model: str
    text: bytes
    """JSON; empty where the body has none, which its node will refuse."""
    tools: bytes
    streamed: bool
    single: bool
    """One choice of one prompt."""


_decoder = msgspec.json.Decoder(_Body)


def read(path: bytes, body: bytes) -> Prompt:
    """Raises Refusal (400) for what no node would take, and for a field that only a router may send."""
    try:
        if not body.isascii():
            body.decode()  # what is taken as it is, is not looked into
        found = _decoder.decode(body)
    except wire.UNREADABLE as error:
        raise refusals.Refusal(400, f"the body can't be read: {error}", code="invalid_body") from None
    if bytes(found.drift_resume):
        raise refusals.Refusal(400, "drift_resume: is set by routers only", code="invalid_body")
    chat = path == b"/v1/chat/completions"
    text = bytes(found.messages if chat else found.prompt)
    return Prompt(
        found.model or "",
        text,
        bytes(found.tools),
        bool(found.stream),
        (found.n or 1) == 1 and (chat or text[:1] == b'"' or _tokens(text)),
    )


def _tokens(text: bytes) -> bool:
    """An array of token ids is one prompt; an array of strings or arrays may be many."""
    rest = text[1:].lstrip()
    return text[:1] == b"[" and rest[:1].isdigit()


Field = msgspec.Raw | msgspec.UnsetType


class _Spelled(msgspec.Struct):
    """What the tokens of a prompt depend on, in vLLM's requests for completions and for tokens alike."""

    model: Field = msgspec.UNSET
    prompt: Field = msgspec.UNSET
    messages: Field = msgspec.UNSET
    tools: Field = msgspec.UNSET
    chat_template: Field = msgspec.UNSET
    chat_template_kwargs: Field = msgspec.UNSET
    add_generation_prompt: Field = msgspec.UNSET
    continue_final_message: Field = msgspec.UNSET
    add_special_tokens: Field = msgspec.UNSET


_spelled = msgspec.json.Decoder(_Spelled)
_token_ids = msgspec.json.Decoder(list[Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]])


def tokenizing(body: bytes) -> bytes:
    """Asks for the tokens of a prompt that `read` took, which is one text or one conversation."""
    return msgspec.json.encode(_spelled.decode(body))


def token_ids(prompt: Prompt) -> list[int] | None:
    """Of a prompt that is an array of them."""
    if not _tokens(prompt.text):
        return None
    try:
        return _token_ids.decode(prompt.text)
    except wire.UNREADABLE:
        return None


def resuming(body: bytes, *, answer_id: str, created: int, seed: int | None, token_ids: list[int]) -> bytes:
    """The same request, told what was drawn already."""
    state = msgspec.json.encode({"id": answer_id, "created": created, "seed": seed, "token_ids": token_ids})
    start = body.index(b"{") + 1
    return body[:start] + b'"drift_resume":' + state + b"," + body[start:]
