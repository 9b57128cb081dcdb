"""How much longer a pass takes beside another lane's work than alone.

Lanes with SMs of their own still share memory bandwidth and the last-level cache. MuxWise (arXiv 2504.14489 v3,
section 3.3) measured 0 to 20 % longer decode passes on A100 and 0 to 30 % on H100, over a grid of some 7,000 pairs
in hours. Here each coarse cell {SMs, what the neighbour does, what the pass itself does} follows a quantile of
observed / predicted while serving: a running value that a longer pass raises and a shorter one lowers, by steps in
the ratio of the quantile to its complement. A cell is three numbers however long it lives.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from drift_engine.latency.loads import Load
from drift_engine.latency.snapshots import CellState

LEAST_FACTOR = 1.0
"""A neighbour never makes a pass faster; a ratio below is the prediction's error, not contention."""

MOST_FACTOR = 4.0
"""Far above the published 1.3: what is beyond is not contention but a wrong prediction, which others correct."""

MOST_START_FACTOR = 1.5
"""What a calibration may say: one that another process disturbed must not keep a planner from ever trying."""

DECODE_QUANTILE = 0.95
DECODE_FACTOR = 1.25
"""Start of a decode cell: between the published bounds of A100 (1.2) and H100 (1.3)."""

PREFILL_QUANTILE = 0.5
PREFILL_FACTOR = 1.1
"""Prefill needs the typical time, not a bound: nobody waits for its single pass. Start: estimate."""

HALF_LIFE_S = 600.0
"""In which a cell that is not seen loses half of what it learned. Estimate: other traffic, and with it other
contention within a cell, comes with the hour rather than with the minute."""

_STEP = 0.2  # share of the spread per pass: a value settles in some hundred passes
_SPREAD_STEP = 0.1  # of the running distance between ratio and value
_SPREAD_START = 0.1  # estimate
_SPREAD_LEAST = 0.005  # so that a cell of equal ratios still moves

ANY = -1
"""In the place of both classes: the cell that says where the others of its SM count start."""

_SMALLEST_CLASS = 4  # below 256 tokens: too little to disturb anybody
_LARGEST_CLASS = 11  # from 1M tokens


@dataclass(slots=True)
class Cell:
    factor: float
    spread: float = _SPREAD_START  # running distance between observed ratios and the factor
    seen_s: float | None = None  # None: before the guard's clock started


class Guard:
    """Follows one quantile of observed / predicted in every cell. Its clock is the last `now_s` that it was told."""

    def __init__(self, quantile: float, start_factor: float) -> None:
        self._quantile = quantile
        self._start_factor = start_factor
        self._cells: dict[tuple[int, int, int], Cell] = {}
        self._now_s: float | None = None

    def factor(self, load: Load, sms: int, neighbour: Load) -> float:
        """By which a pass of `load` on `sms` SMs takes longer beside `neighbour`: 1 to MOST_FACTOR."""
        if not neighbour:
            return LEAST_FACTOR
        cell = self._cells.get((sms, load_class(load), load_class(neighbour)))
        return self._start_of(sms) if cell is None else self._faded(cell, sms)

    def usual(self, sms: int) -> float:
        """The median over what was seen on `sms` SMs; where cells start while nothing was."""
        seen = [
            self._faded(cell, sms) for key, cell in self._cells.items() if key[0] == sms and key[1] != ANY
        ]
        return statistics.median(seen) if seen else self._start_of(sms)

    def start(self, factors: Mapping[int, float]) -> None:
        """Begins anew: where cells start, by SM count, as a calibration found it."""
        self._cells = {
            (sms, ANY, ANY): Cell(min(max(factor, LEAST_FACTOR), MOST_START_FACTOR))
            for sms, factor in factors.items()
        }

    def observe(self, load: Load, sms: int, neighbour: Load, ratio: float, now_s: float) -> None:
        """`ratio` is a pass's observed time over the one predicted for it alone."""
        self._now_s = now_s
        key = (sms, load_class(load), load_class(neighbour))
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = Cell(self._start_of(sms))
        ratio = min(max(ratio, LEAST_FACTOR), MOST_FACTOR)
        factor = self._faded(cell, sms)
        cell.seen_s = now_s
        # Never past the ratio itself: a step is for many passes, the ratio is what this one asks for.
        if ratio > factor:
            cell.factor = min(ratio, factor + _STEP * cell.spread * self._quantile)
        else:
            cell.factor = max(ratio, factor - _STEP * cell.spread * (1 - self._quantile))
        cell.spread += _SPREAD_STEP * (abs(ratio - factor) - cell.spread)
        cell.spread = max(cell.spread, _SPREAD_LEAST)

    def states(self) -> tuple[CellState, ...]:
        """As of the guard's clock."""
        return tuple(
            CellState(*key, self._faded(cell, key[0]), cell.spread) for key, cell in self._cells.items()
        )

    def restore(self, states: tuple[CellState, ...]) -> None:
        """Restored cells start to fade with the first pass that is observed."""
        self._cells = {
            (state.sms, state.load_class, state.neighbour_class): Cell(
                min(state.factor, MOST_FACTOR), state.spread
            )
            for state in states
        }
        self._now_s = None

    def _start_of(self, sms: int) -> float:
        cell = self._cells.get((sms, ANY, ANY))
        return self._start_factor if cell is None else cell.factor

    def _faded(self, cell: Cell, sms: int) -> float:
        """The cell's factor, on its way back to the start since it was last seen."""
        start_factor = self._start_of(sms)
        if self._now_s is None:
            return cell.factor
        if cell.seen_s is None:
            cell.seen_s = self._now_s
        idle_s = self._now_s - cell.seen_s
        if idle_s <= 0:
            return cell.factor
        return start_factor + (cell.factor - start_factor) * math.exp2(-idle_s / HALF_LIFE_S)


def load_class(load: Load) -> int:
    """Powers of four of the new tokens, of what each of them reuses, and of the decode rows' context, in one number.

    A zero in a place: none of that. The number of decode rows makes no class: their memory traffic is the weights',
    which every pass reads, and the context's.
    """
    found = _size_class(load.decode_context_tokens) if load.decode_rows else 0
    if load.new_tokens:
        reused_tokens = load.new_times_reused // load.new_tokens
        found |= _size_class(load.new_tokens) << 4 | _size_class(reused_tokens) << 8
    return found


def _size_class(tokens: int) -> int:
    return min(max((tokens.bit_length() + 1) // 2, _SMALLEST_CLASS), _LARGEST_CLASS)
