"""What is practised when: the share of each kind and the length of the rows, as functions of progress in [0,
1]."""

import random
from collections.abc import Mapping

from drift_tiny import facts, packing, tasks

SOURCES: Mapping[str, packing.Source] = {
    "induction": packing.held_in(tasks.induction),
    "copying": packing.held_in(tasks.copying),
    "recall": packing.recall,
    "arithmetic": lambda rng, room: tasks.arithmetic(rng),
    "facts": lambda rng, room: facts.practice(rng),
    "chat": lambda rng, room: facts.small_talk(rng),
    "tools": packing.tools,
    "lists": packing.held_in(tasks.lists),
}

EARLY_SHARES = {
    "induction": 0.18,
    "copying": 0.15,
    "recall": 0.30,
    "arithmetic": 0.15,
    "facts": 0.14,
    "chat": 0.03,
    "tools": 0.03,
    "lists": 0.02,
}
"""Looking things up comes first, because recall, copying and tools all wait for it."""

LATE_SHARES = {
    "induction": 0.01,
    "copying": 0.07,
    "recall": 0.26,
    "arithmetic": 0.16,
    "facts": 0.25,
    "chat": 0.08,
    "tools": 0.14,
    "lists": 0.03,
}

ROW_LENGTHS: tuple[tuple[float, Mapping[int, float]], ...] = (
    (0.12, {256: 1.0}),
    (0.30, {256: 0.5, 512: 0.4, 1024: 0.1}),
    (0.55, {256: 0.35, 512: 0.3, 1024: 0.2, 2048: 0.15}),
    (1.01, {256: 0.25, 512: 0.25, 1024: 0.2, 2048: 0.17, 4096: 0.1, 8192: 0.03}),
)
"""Up to this progress: the chance of each row length. Short rows are two to three times cheaper per token."""


def shares(progress: float) -> dict[str, float]:
    """The share of each kind among the tokens of short rows; moves from the early to the late mix in the
    first third."""
    late = min(1.0, progress / 0.33)
    return {kind: (1 - late) * EARLY_SHARES[kind] + late * LATE_SHARES[kind] for kind in SOURCES}


def row_length(progress: float, rng: random.Random) -> int:
    """How long the next batch's rows are."""
    chances = next(chances for limit, chances in ROW_LENGTHS if progress < limit)
    return rng.choices(list(chances), list(chances.values()))[0]
