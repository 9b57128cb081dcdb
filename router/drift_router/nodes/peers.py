"""What other workers of this router have on the nodes: their own words, each true until the next or for a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

LASTS_S = 1.0
"""A figure that is not told again for so long is forgotten: ten words that were lost, or a worker that died."""


class Load(NamedTuple):
    """On one node."""

    waiting_tokens: int = 0
    """Uncached prompt tokens of requests that have no first byte yet."""
    in_flight: int = 0

    def __bool__(self) -> bool:
        return self != NOTHING


NOTHING = Load()


class Peers:
    """The sum over all of them. Words are of absolute figures: one that is lost, late or said twice mends itself.

    `changed` is called with a node's name and the new sum.
    """

    def __init__(self, changed: Callable[[str, Load], None]) -> None:
        self._changed = changed
        # by worker and node, those told last at the end
        self._told: dict[tuple[int, str], tuple[Load, float]] = {}
        self._sums: dict[str, Load] = {}

    def __bool__(self) -> bool:
        """Something is known that will have to be forgotten."""
        return bool(self._told)

    def told(self, worker: int, node: str, load: Load, now_s: float) -> None:
        before, _ = self._told.pop((worker, node), (NOTHING, 0.0))
        if load:
            self._told[worker, node] = load, now_s
        if load != before:
            self._add(node, load, before)

    def forget(self, now_s: float) -> None:
        """What is too old. To be called every now and then."""
        while self._told:
            key, (load, told_s) = next(iter(self._told.items()))
            if now_s - told_s < LASTS_S:
                break
            del self._told[key]
            self._add(key[1], NOTHING, load)

    def _add(self, node: str, load: Load, before: Load) -> None:
        tokens, in_flight = self._sums.pop(node, NOTHING)
        total = Load(
            tokens + load.waiting_tokens - before.waiting_tokens,
            in_flight + load.in_flight - before.in_flight,
        )
        if total:
            self._sums[node] = total
        self._changed(node, total)
