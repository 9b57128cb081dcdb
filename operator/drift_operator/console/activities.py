"""What a node's lanes did between two reports: for how much of the time it worked, and the bubbles in that. Pure.

A bubble of a lane is time in which the device worked and that lane had nothing of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from drift_engine import wire
from drift_engine.wire import Activity

LEAST_WORK_S = 0.001
"""Less work than that has no lanes to speak of: one decode step takes several milliseconds."""


@dataclass(frozen=True, slots=True)
class Lanes:
    """Shares from 0 to 1."""

    busy: float
    """Of the time."""
    decode_bubble: float | None
    """Of the work; None: there was none."""
    prefill_bubble: float | None


def between(before: wire.Report, now: wire.Report) -> Lanes | None:
    """None where the two are of different starts of the node, or are the same."""
    elapsed_s = now.uptime_s - before.uptime_s
    spent_s = {
        activity: now.activity_s_total.get(activity, 0.0) - before.activity_s_total.get(activity, 0.0)
        for activity in Activity
    }
    worked_s = sum(spent_s.values())
    numbers = (elapsed_s, worked_s, *spent_s.values())
    if not all(map(math.isfinite, numbers)) or elapsed_s <= 0 or min(spent_s.values()) < 0:
        return None
    busy = min(1.0, worked_s / elapsed_s)
    if worked_s < LEAST_WORK_S:
        return Lanes(busy, None, None)
    return Lanes(busy, spent_s[Activity.PREFILL] / worked_s, spent_s[Activity.DECODE] / worked_s)
