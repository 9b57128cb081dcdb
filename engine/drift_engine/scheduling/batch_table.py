"""Baseline: SGLang's PD multiplexing. The split is looked up by the number of decode rows, and by nothing else.

First come, first served; no prediction of the step at hand, no guard, no interruption. SGLang's tables are written by
hand for a model, a GPU and a workload. An honest rival has a good one: `tuned` makes it as somebody with much
patience would, by trying every split for every batch at the workload's typical context beside a typical prefill, and
keeping the one with the most for prefill that keeps the TBT target. It is made once, and again only when the targets
or the legal splits change. `read` takes one that was written by hand. Layers are launched as far as a decode step
lasts, as in all modes (SGLang launches 65,536 / tokens layers in each turn).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from drift_engine import wire
from drift_engine.latency.loads import Load
from drift_engine.scheduling import two_lanes
from drift_engine.scheduling.admission import Room
from drift_engine.scheduling.predictions import Predictions
from drift_engine.scheduling.splits import FILL_SHARE
from drift_engine.scheduling.two_lanes import Chosen, Policy
from drift_engine.scheduling.views import State, Table

TYPICAL_PROMPT_TOKENS = 512
"""Of the prefill beside which the table is tuned. Contention hardly depends on it: see `latency.guard.load_class`."""


def tuned(
    splits: Sequence[wire.Split],
    max_rows: int,
    context_tokens: int,
    tbt_target_s: float,
    latency: Predictions,
) -> Table | None:
    """For 1, 2, 4, ... rows; up to a size, so the entry for 5 rows is that of 8. None: too little is known yet."""
    prefill = Load.prefill([(TYPICAL_PROMPT_TOKENS, 0)])
    table, rows, first = [], 1, 1
    while splits and first <= max_rows:
        found = splits[-1]
        for split in splits:
            step_s = latency.beside_s(Load.decode(rows, rows * context_tokens), split.decode_sms, prefill)
            if step_s is None:
                return None
            if step_s <= tbt_target_s * FILL_SHARE:
                found = split
                break
        table.append((first, found))
        first, rows = rows + 1, 2 * rows
    return tuple(table)


def read(text: str, splits: Sequence[wire.Split]) -> Table:
    """`ROWS:DECODE_SMS,...`: from so many rows on the split with so many decode SMs, or the next larger one that
    there is. Raises ValueError."""
    table: dict[int, wire.Split] = {}
    largest = 0
    for entry in text.split(",") if text else ():
        match = re.fullmatch(r"\s*(\d{1,5}):(\d{1,5})\s*", entry)
        if match is None:
            raise ValueError(f"batch_table: {entry!r} is not ROWS:DECODE_SMS, as in 1:16,8:32")
        rows, sms = int(match[1]), int(match[2])
        if rows <= largest:
            raise ValueError(f"batch_table: {rows} rows must be more than the {largest} before them")
        largest = rows
        if splits:
            table[rows] = next((split for split in splits if split.decode_sms >= sms), splits[-1])
    return tuple(table.items())


def split(state: State, room: Room, prefill: Load, latency: Predictions, now_s: float) -> Chosen:
    """That of the largest size that the batch reaches, else the first; the middle one while there is no table."""
    rows, found = len(room.decoding), None
    for first, candidate in state.table:
        if found is None or first <= rows:
            found = candidate
    found = found or state.lanes.splits[len(state.lanes.splits) // 2]
    return Chosen(found, found)


BATCH_TABLE = Policy(wire.Mode.BATCH_TABLE, split, two_lanes.first_come_tokens, two_lanes.never)
