"""Tokens to text, one token at a time, without ever showing half a character.

In: the tokens of one request in order. Out: text whose concatenation equals the decoding of all tokens at
once. Byte-level vocabularies (Llama 3, Qwen, recent Mistral) are decoded from each token's bytes, at the
cost of a dictionary look-up. Others (SentencePiece) depend on their neighbours, so a window over the last
tokens is decoded twice and the difference is what is new; a run of byte tokens that is not valid UTF-8 is
shown as replacement characters.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Protocol

from drift_engine.text.tokenizer import Tokenizer

_REPLACEMENT = "\ufffd"
_CONTEXT_TOKENS = 6
"""Prompt tokens that a windowed decoder sees first: enough for a character of six byte tokens or a leading space."""


class Detokenizer(Protocol):
    def push(self, token_id: int) -> str:
        """The text that is certain now; empty while a character is incomplete."""

    def flush(self) -> str:
        """What is left at the end: incomplete characters as U+FFFD."""


def detokenizer(
    tokenizer: Tokenizer, *, context: Sequence[int] = (), visible: frozenset[int] = frozenset()
) -> Detokenizer:
    """For one sequence. `context` is the prompt whose text the output continues, where it does (not after a chat
    template); special tokens are skipped unless `visible`."""
    hidden = frozenset(tokenizer.special.values()) - visible
    if tokenizer.byte_level:
        return _Bytes(tokenizer, hidden)
    return _Window(tokenizer, hidden, context)


class _Bytes:
    def __init__(self, tokenizer: Tokenizer, hidden: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._hidden = hidden
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        if token_id in self._hidden:
            return ""
        return self._decoder.decode(self._tokenizer.token_bytes(token_id))

    def flush(self) -> str:
        return self._decoder.decode(b"", final=True)


class _Window:
    # ids[:read] were shown and are kept as context for the next token, ids[read:] are held back
    def __init__(self, tokenizer: Tokenizer, hidden: frozenset[int], context: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._hidden = hidden
        self._ids = [i for i in context[-_CONTEXT_TOKENS:] if i not in hidden]
        self._read = len(self._ids)
        self._shown = self._decode(self._ids)

    def _decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=False)

    def push(self, token_id: int) -> str:
        if token_id in self._hidden:
            return ""
        self._ids.append(token_id)
        text = self._decode(self._ids)
        if text.endswith(_REPLACEMENT) or len(text) <= len(self._shown):
            return ""
        return self._advance(text)

    def flush(self) -> str:
        return self._advance(self._decode(self._ids))

    def _advance(self, text: str) -> str:
        new = text[len(self._shown) :]
        self._ids = self._ids[self._read :] or self._ids
        self._read = len(self._ids)
        self._shown = self._decode(self._ids)
        return new
