"""What the generators hand on: a `Sample`, one conversation or plain text with the parts that are to be
learned.

`tasks` and `facts` make samples, `packing` turns them into token rows for `training`, `evaluation` asks their
last question.
"""

import dataclasses
import zlib
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]

HOLD_OUT_MODULUS = 16
"""One question in this many is kept out of training; which one depends on its text alone."""


@dataclasses.dataclass(frozen=True)
class Turn:
    """One message; `learned` is off for assistant turns that only set the scene."""

    role: Role
    content: str
    learned: bool = True


@dataclasses.dataclass(frozen=True)
class Sample:
    """A conversation that ends with the assistant's answer, or, for `plain`, pieces of text with the learned
    ones marked.

    `expected` is what an answer to the last question must contain; `tools` are function schemas shown to the
    model.
    """

    kind: str
    turns: tuple[Turn, ...]
    expected: str = ""
    tools: tuple[dict[str, Any], ...] = ()
    plain: bool = False

    @property
    def question(self) -> str:
        """Everything in front of the last answer, as one string: the identity of the question asked."""
        return "\n".join(turn.content for turn in self.turns[:-1])

    @property
    def answer(self) -> str:
        return self.turns[-1].content


def is_held_out(text: str) -> bool:
    """Whether a question with this text belongs to the evaluation; training generators draw again when it
    does."""
    return zlib.crc32(text.encode()) % HOLD_OUT_MODULUS == 0
