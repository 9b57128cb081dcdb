"""Which of the splits: the fewest decode SMs whose step keeps its time, everything else to prefill.

Prefill's share may be taken at any time, for a promise depends on it. It is given back with hesitation: the present
split has to stand for a while, and the smaller one must leave time to spare. Prefill that would be done long before
the step beside it lends SMs to that step (`balanced`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from drift_engine import wire
from drift_engine.latency.loads import Load
from drift_engine.scheduling.predictions import Predictions
from drift_engine.scheduling.views import Lanes, State

FILL_SHARE = 0.95
"""Of its time that a step may fill: the loop between two steps takes the rest, 0.5 to 1 ms of 15 and more. That it
may take longer than usual is in the prediction already, unlike in `fused.SLACK_SHARE`. Estimate."""

KEEP_SHARE = 0.85
"""A smaller decode part is taken only when its step fills no more than this of its time, a larger one as soon as the
present one's exceeds it: the split does not flutter. Estimate."""

BALANCE_SHARE = 0.95
"""A step departs from its split for the sake of balance when both phases end in less than this share of the time.
Simulated, 8B, the Azure trace at 100 ms, mean of four rates from 18.5 to 21.5/s: `mux` keeps the promise to 91.9 % of
the requests without departures, to 97.0 % with 0.8 and to 97.5 % with 0.95."""


def usable(mode: wire.Mode, splits: Sequence[wire.Split], sms: int) -> tuple[wire.Split, ...]:
    """Of those that a device of `sms` SMs offers: overlap takes those whose lanes share SMs, every other the rest."""
    overlapping = mode is wire.Mode.OVERLAP
    return tuple(s for s in splits if (s.decode_sms + s.prefill_sms > sms) is overlapping)


def needed(mode: wire.Mode) -> bool:
    """Whether the mode can do nothing without a split."""
    return mode in (wire.Mode.MUX, wire.Mode.MUXWISE, wire.Mode.BATCH_TABLE, wire.Mode.OVERLAP)


def settled(
    state: State, decode: Load, allowed_s: float, prefill: Load, latency: Predictions, now_s: float
) -> wire.Split:
    """The one to stay with, from now on and not only for the step at hand."""
    candidates = open_splits(state.lanes, state.limits.min_dwell_s, now_s)
    return fewest(state, candidates, decode, allowed_s, prefill, latency)


def urgent(
    state: State, base: wire.Split, decode: Load, allowed_s: float, prefill: Load, latency: Predictions
) -> wire.Split:
    """For the step at hand: `base`, or more decode SMs where its rows have less time than usual."""
    candidates = ((split, 1.0) for split in state.lanes.splits if split.decode_sms >= base.decode_sms)
    return fewest(state, candidates, decode, allowed_s, prefill, latency)


def fewest(
    state: State,
    candidates: Iterable[tuple[wire.Split, float]],
    decode: Load,
    allowed_s: float,
    prefill: Load,
    latency: Predictions,
) -> wire.Split:
    """The first candidate whose step, beside the prefill, fills no more than its share of the allowed time; the most
    decode SMs where none does.

    Nothing known counts as kept: the first step tells.
    """
    for split, share in candidates:
        step_s = latency.beside_s(decode, split.decode_sms, prefill)
        if step_s is None or step_s <= allowed_s * share * FILL_SHARE:
            return split
    return state.lanes.splits[-1]


def balanced(state: State, base: wire.Split, decode: Load, prefill: Load, latency: Predictions) -> wire.Split:
    """`base`, or more decode SMs for a step that would outlast the prefill beside it: those with which both end
    soonest. Where a prefill outlasts the step, or nothing is known, `base`."""
    found, found_s = base, math.inf
    for split in state.lanes.splits:
        if split.decode_sms < base.decode_sms:
            continue
        step_s = latency.beside_s(decode, split.decode_sms, prefill)
        prefill_s = latency.beside_s(prefill, split.prefill_sms, decode)
        if step_s is None or prefill_s is None:
            break
        if max(step_s, prefill_s) < found_s * BALANCE_SHARE:
            found, found_s = split, max(step_s, prefill_s)
        if prefill_s >= step_s:  # the more SMs decode gets, the later the prefill ends
            break
    return found


def open_splits(lanes: Lanes, min_dwell_s: float, now_s: float) -> Iterator[tuple[wire.Split, float]]:
    """Those that may follow the present one, each with the share of the allowed time that its step may fill."""
    present = lanes.split
    dwells = now_s - lanes.split_since_s < min_dwell_s
    for split in lanes.splits:
        if present is None or split.decode_sms >= present.decode_sms:
            yield split, 1.0
        elif not dwells:
            yield split, KEEP_SHARE
