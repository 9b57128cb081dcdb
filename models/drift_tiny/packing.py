"""From samples to rows of tokens: several conversations per row, in shares that hold by tokens rather than by
count.

A row has no mask between its conversations. The model therefore also learns to answer a question with
unrelated text in front of it, which is what a long chat looks like, and attention stays on the fast causal
path.
"""

import dataclasses
import random
from collections.abc import Callable, Mapping

import numpy
import tokenizers
from numpy.typing import NDArray

from drift_tiny import chat, samples, tasks

SMALLEST_ROOM = 24
"""Fewer tokens than this at the end of a row stay padding."""

Source = Callable[[random.Random, int], samples.Sample]
"""Makes a training sample of at most about that many tokens."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """B rows of T tokens; `targets[b, t]` is the kind's index + 1 where token t is to be predicted, or 0."""

    tokens: NDArray[numpy.int64]
    targets: NDArray[numpy.int64]


class Packer:
    """Fills rows from the sources, always drawing from the kind that lags furthest behind its share."""

    def __init__(
        self,
        tokenizer: tokenizers.Tokenizer,
        sources: Mapping[str, Source],
        shares: Mapping[str, float],
        seed: int,
    ) -> None:
        self.tokenizer, self.sources = tokenizer, sources
        self.rng = random.Random(seed)
        self.kinds = tuple(sources)
        self.shares = dict(shares)
        self.spent = dict.fromkeys(self.kinds, 0.0)
        self.padding = tokenizer.token_to_id(chat.END_OF_TEXT)

    def encode(self, sample: samples.Sample) -> tuple[list[int], list[bool]]:
        """Token ids of a sample and which of them are to be predicted."""
        ids: list[int] = []
        learned: list[bool] = []
        for text, wanted in chat.pieces(sample):
            part = self.tokenizer.encode(text).ids
            ids += part
            learned += [wanted] * len(part)
        return ids, learned

    def batch(self, rows: int, length: int) -> Batch:
        """The next `rows` rows of `length` tokens."""
        tokens = numpy.full((rows, length), self.padding, dtype=numpy.int64)
        targets = numpy.zeros((rows, length), dtype=numpy.int64)
        for row in range(rows):
            self.fill(tokens[row], targets[row])
        return Batch(tokens, targets)

    def fill(self, tokens: NDArray[numpy.int64], targets: NDArray[numpy.int64]) -> None:
        """Fill one row, its first conversation at position 0, each followed by the end-of-text token."""
        length = len(tokens)
        at = 0
        if length >= 1024 and "recall" in self.sources:
            room = length * self.rng.uniform(0.5, 0.9)
            while at == 0 and room > length / 4:
                at, room = self.place("recall", int(room), tokens, targets, at), room * 0.85
        misses = 0
        while length - at > SMALLEST_ROOM and misses < 4:
            kind = min(self.kinds, key=lambda kind: (self.spent[kind] + 1) / self.shares[kind])
            limit = min(length - at, 1024)
            room = int(SMALLEST_ROOM * (limit / SMALLEST_ROOM) ** self.rng.random())
            after = self.place(kind, room, tokens, targets, at)
            misses = misses + 1 if after == at else 0
            at = after

    def place(
        self, kind: str, room: int, tokens: NDArray[numpy.int64], targets: NDArray[numpy.int64], at: int
    ) -> int:
        """Put one sample of a kind at `at` if it fits; where the row goes on."""
        ids, learned = self.encode(self.sources[kind](self.rng, room))
        end = at + len(ids)
        if end > len(tokens):
            return at
        tokens[at:end] = ids
        targets[at:end][learned] = self.kinds.index(kind) + 1
        self.spent[kind] += len(ids) if len(ids) < 1024 else 0
        return min(end + 1, len(tokens))


def held_in(generate: tasks.Generator) -> Source:
    """A source of training samples from a generator that takes no room."""
    return lambda rng, room: tasks.draw(generate, rng, held_out=False)


def recall(rng: random.Random, room: int) -> samples.Sample:
    """Recall that fills the room it is given."""
    return tasks.draw(lambda rng: tasks.recall(rng, room), rng, held_out=False)


def tools(rng: random.Random, room: int) -> samples.Sample:
    """Calls of tools that suit the room."""
    return tasks.draw(lambda rng: tasks.practised_tools(rng, room), rng, held_out=False)
