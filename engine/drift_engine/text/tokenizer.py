"""The tokenizer of a checkpoint, as the api process needs it.

In: the folder that `drift_engine.sources` resolved. Out: token ids for the core, and for `detokenizer` the
exact bytes of every token. Wraps the Rust tokenizer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tokenizers

from drift_engine.errors import ModelError

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_WORD_MARK = "\u2581"
"""How SentencePiece vocabularies write a space."""


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's table: the printable character that stands for each byte in a byte-level vocabulary."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(hidden)}


_ALPHABET = _byte_alphabet()


class Tokenizer:
    """Encodes and decodes; `special` tokens are those that ordinary text never shows."""

    def __init__(self, inner: tokenizers.Tokenizer, config: Mapping[str, Any] | None = None) -> None:
        inner.no_truncation()
        inner.no_padding()
        self.inner = inner
        self.config: Mapping[str, Any] = config or {}
        added = inner.get_added_tokens_decoder()
        self.special: dict[str, int] = {token.content: i for i, token in added.items() if token.special}
        self.added: dict[str, int] = {token.content: i for i, token in added.items()}
        self._added_ids = frozenset(added)
        vocabulary = inner.get_vocab(with_added_tokens=True)
        self.size: int = 1 + max(vocabulary.values(), default=-1)
        self.longest_token_chars: int = max(map(len, vocabulary), default=1)
        decoder = json.loads(inner.to_str()).get("decoder") or {}
        self.byte_level: bool = decoder.get("type") == "ByteLevel"

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Reads `tokenizer.json` and `tokenizer_config.json`. Raises ModelError."""
        path = folder / "tokenizer.json"
        try:
            inner = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the binding raises plain Exception for missing and damaged files alike
            hint = "" if path.exists() else "; save it with the model's fast tokenizer"
            raise ModelError(f"{path}: can't be read as a tokenizer: {error}{hint}") from error
        return cls(inner, read_json(folder / "tokenizer_config.json"))

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        ids: list[int] = self.inner.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def encode_apart(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """The same for another thread: the binding releases the interpreter lock for batches only."""
        found = self.inner.encode_batch_fast([text], add_special_tokens=add_special_tokens)
        ids: list[int] = found[0].ids
        return ids

    def decode(self, token_ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
        text: str = self.inner.decode(list(token_ids), skip_special_tokens=skip_special_tokens)
        return text

    def token(self, token_id: int) -> str:
        """The vocabulary's own spelling; ids beyond the vocabulary have none."""
        return self.inner.id_to_token(token_id) or ""

    def token_bytes(self, token_id: int) -> bytes:
        """What the token adds to a text, as bytes: one token may be part of a character."""
        token = self.token(token_id)
        if token_id in self._added_ids:
            return token.encode()
        if self.byte_level:
            try:
                return bytes([_ALPHABET[char] for char in token])
            except KeyError:  # not spelled in the alphabet: the decoder takes it literally too
                return token.encode()
        if match := _BYTE_TOKEN.fullmatch(token):
            return bytes([int(match[1], 16)])
        return token.replace(_WORD_MARK, " ").encode()

    def named_token(self, name: str) -> str | None:
        """`bos_token`, `eos_token`, ... of `tokenizer_config.json`, which writes them as text or as an object."""
        value = self.config.get(name)
        if isinstance(value, Mapping):
            value = value.get("content")
        return value if isinstance(value, str) else None


def read_json(path: Path) -> dict[str, Any]:
    """The object in the file, or an empty one where there is no file. Raises ModelError for a damaged file."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: can't be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: must hold a JSON object")
    return value
