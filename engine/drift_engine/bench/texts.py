"""Deterministic prompts of a wanted number of tokens, with the sharing that block ids ask for.

A block id and a seed fix a block's text. The vocabulary is a list of words of equal token cost under the served
model's tokenizer (`preparing.calibrate` measures it), so that a text's length in tokens is known beforehand.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence

import msgspec

_WORDS = """
the and for are but not you all any can had her was one our out day get has him his how man new now old see
two way who boy did its let put say she too use red big few got run own end why ask men law war god yet far
eye act air arm art bad bag bed bit box bus buy car cat cup cut die dog dry due ear eat egg fat fit fly fun
gas gun guy hat hit hot ice job key kid lay leg lie lot low map mix oil pay per pop raw rid row sea set sex
sit six sky son sum sun tax tea ten tie tip top toy try web wet win add age ago aid aim boat book cold dark
door east fast fire fish food game girl gold good half hand head high home hour king lake land last left
life line long main mark moon name near next note open page park part past plan play road rock room rose
salt sand ship shop side snow song star step stone time town tree wall water wind winter wood word work year
"""
CANDIDATES = tuple(" " + word for word in _WORDS.split())
"""Common short words: nearly all are one token in a vocabulary of 2,000 entries or more."""
ENOUGH_WORDS = 16
"""So many words of equal cost make blocks that differ from their first words on."""
ID_WORDS = 4
"""The first words of a block spell its id, lowest digit first: neighbouring ids differ in the first word."""
BLOCKS_KEPT = 4096
"""Block texts kept for reuse: 10 MB at 512 tokens."""


class Vocabulary(msgspec.Struct, frozen=True):
    """Words of `word_tokens` tokens each; the server adds `overhead_tokens` to a prompt (BOS, chat template)."""

    words: tuple[str, ...]
    word_tokens: int = 1
    overhead_tokens: int = 0
    chars_per_token: float = 4.0
    measured: bool = False


FALLBACK = Vocabulary(words=tuple(word for word in CANDIDATES if len(word) == 4))
"""Without a tokenizer to ask: words of four characters with their space, counted as one token each."""


def choose(costs: dict[str, int], overhead_tokens: int) -> Vocabulary:
    """The cheapest class of equally long words that is big enough; the biggest class if none is."""
    classes: dict[int, list[str]] = {}
    for word, cost in costs.items():
        classes.setdefault(cost, []).append(word)
    big = [cost for cost, words in classes.items() if len(words) >= ENOUGH_WORDS]
    cost = min(big) if big else max(classes, key=lambda cost: len(classes[cost]))
    words = tuple(classes[cost])
    return Vocabulary(
        words=words,
        word_tokens=cost,
        overhead_tokens=overhead_tokens,
        chars_per_token=sum(map(len, words)) / len(words) / cost,
        measured=True,
    )


class Writer:
    """Writes prompts. Two writers of the same vocabulary and seed write the same texts."""

    def __init__(self, vocabulary: Vocabulary, seed: int) -> None:
        self._vocabulary = vocabulary
        self._seed = seed
        words = list(vocabulary.words)
        random.Random(seed).shuffle(words)  # noqa: S311 - a workload, not a secret
        self._words = words
        self._by_byte = [words[byte % len(words)] for byte in range(256)]
        self._block = functools.lru_cache(BLOCKS_KEPT)(self._new_block)

    def prompt(self, block_ids: Sequence[int], block_tokens: int, prompt_tokens: int) -> str:
        """`prompt_tokens` tokens, less at most one word's cost per block; all blocks but the last are whole."""
        cost = self._vocabulary.word_tokens
        block_words = max(1, block_tokens // cost)
        words_left = max(1, (prompt_tokens - self._vocabulary.overhead_tokens) // cost)
        parts = []
        for block_id in block_ids:
            count = min(block_words, words_left)
            parts.append("".join(self._block(block_id, block_words)[:count]))
            words_left -= count
            if words_left == 0:
                break
        return "".join(parts)

    def _new_block(self, block_id: int, words: int) -> tuple[str, ...]:
        digits, rest = [], block_id
        for _ in range(min(ID_WORDS, words)):
            rest, digit = divmod(rest, len(self._words))
            digits.append(self._words[digit])
        draw = random.Random(f"{self._seed}/{block_id}")  # noqa: S311 - a workload, not a secret
        filling = draw.randbytes(words - len(digits))
        return (*digits, *[self._by_byte[byte] for byte in filling])
