"""Answers that hold for a moment: a bounded memory, so that a question asked often is passed on once."""

from __future__ import annotations

import collections
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Answer = TypeVar("Answer")


class Memory(Generic[Key, Answer]):
    """Forgets an answer after `life_s`, and the one least recently given once there are more than `limit`."""

    def __init__(self, life_s: float, limit: int, clock: Callable[[], float]) -> None:
        self._life_s = life_s
        self._limit = limit
        self._clock = clock
        self._held: collections.OrderedDict[Key, tuple[float, Answer]] = collections.OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def recall(self, key: Key) -> Answer | None:
        held = self._held.get(key)
        return held[1] if held is not None and self._clock() < held[0] else None

    def keep(self, key: Key, answer: Answer) -> Answer:
        """`answer` itself, to return."""
        self._held[key] = (self._clock() + self._life_s, answer)
        self._held.move_to_end(key)
        while len(self._held) > self._limit:
            self._held.popitem(last=False)
        return answer
