"""Constrained generation through llguidance: one matcher per request, a bitmask of allowed tokens per step."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import llguidance
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from drift_engine import wire
from drift_engine.errors import EngineError


class GrammarError(EngineError):
    """A grammar that can't be compiled; its message is the compiler's."""


_LIMITS = llguidance.LLParserLimits(verbose_errors=False)
"""Its own bounds: a step takes some 15 ms at most. Errors go to clients and logs, and would else hold the parser's
whole state."""


class Matcher:
    """The state of one request's grammar."""

    def __init__(self, tokenizer: Any, grammar: str, words: int) -> None:
        self._matcher = llguidance.LLMatcher(tokenizer, grammar, limits=_LIMITS)
        if self._matcher.is_error():
            raise GrammarError(self._matcher.get_error())
        self._words = words

    def bitmask(self) -> NDArray[np.int32]:
        """int32 [words], bit 1 = may come next."""
        mask = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.int32)
        if len(mask) < self._words:  # embeddings padded beyond the tokenizer's vocabulary are never allowed
            mask = np.concatenate([mask, np.zeros(self._words - len(mask), dtype=np.int32)])
        return mask[: self._words]

    @property
    def error(self) -> str:
        """Why nothing can come next; empty: nothing is wrong."""
        return str(self._matcher.get_error()) if self._matcher.is_error() else ""

    def advance(self, token_id: int) -> bool:
        """Takes a drawn token; True when nothing may follow it."""
        if not self._matcher.consume_token(token_id):
            raise GrammarError(f"token {token_id} breaks the grammar: {self._matcher.get_error()}")
        return bool(self._matcher.is_stopped())


class Grammars:
    """Makes matchers; the tokenizer's trie is built at the first use (0.1-1 s for large vocabularies)."""

    def __init__(self, model_path: Path, vocab_size: int, eos_token_ids: Sequence[int]) -> None:
        self._words = -(-vocab_size // 32)
        self._load: Callable[[], Any] = lambda: _tokenizer(model_path, vocab_size, eos_token_ids)
        self._tokenizer: Any = None

    def matcher(self, grammar: wire.Grammar) -> Matcher:
        """Raises GrammarError."""
        if self._tokenizer is None:
            self._tokenizer = self._load()
        try:
            return Matcher(self._tokenizer, compile_grammar(grammar), self._words)
        except ValueError as error:
            raise GrammarError(str(error)) from error


JSON_FORM = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""One way to write a value, that of json.dumps, which models write anyway. Free whitespace lets a small model emit
blanks until max_tokens."""


def compile_grammar(grammar: wire.Grammar) -> str:
    """llguidance's serialised form. Raises ValueError."""
    matchers = llguidance.LLMatcher
    match grammar.kind:
        case wire.GrammarKind.JSON_SCHEMA:
            return str(matchers.grammar_from_json_schema(json.loads(grammar.text), defaults=JSON_FORM))
        case wire.GrammarKind.JSON_OBJECT:
            return str(matchers.grammar_from_json_schema({"type": "object"}, defaults=JSON_FORM))
        case wire.GrammarKind.REGEX:
            return str(matchers.grammar_from_regex(grammar.text))
        case wire.GrammarKind.LARK:
            return str(matchers.grammar_from_lark(grammar.text))


def _tokenizer(model_path: Path, vocab_size: int, eos_token_ids: Sequence[int]) -> Any:
    text = (model_path / "tokenizer.json").read_text()
    Tokenizer.from_str(text)  # names what is wrong with a damaged file; llguidance only panics
    return llguidance.LLTokenizer(text, n_vocab=vocab_size, eos_token=list(eos_token_ids) or None)
