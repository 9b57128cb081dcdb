"""Measures a few passes on the device's lanes before the node serves, so that the planner need not guess.

The passes compute nothing anybody reads: they write into KV pages that nobody holds yet. The most telling ones come
first, on every lane size, because a large model on a small device runs out of the time that there is.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from drift_engine import wire
from drift_engine.core.flights import load_of
from drift_engine.devices.base import Device, Draw, Lane, Pass, Row
from drift_engine.errors import DeviceError
from drift_engine.latency import Kind, Load, fitting

log = logging.getLogger(__name__)

BUDGET_S = {"cpu": 5.0, "cuda": 60.0}
"""After which no further pass is started. drift-tiny's grid takes 1 s on 2 cores; of a 120M model it takes 5."""

REPEATS = 2
"""Of which the quicker counts: the first of a shape also pays for what is made once."""

PASS_TIMEOUT_S = 120.0
"""Of one pass: decode steps of an 8B model on 2 cores, the slowest that anybody waits for, take some 5 s."""

MOST_SIZES = 3
"""SM counts to measure of the split lanes of each phase: fewest, middle, most. Those between are interpolated."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Rows of `new` tokens behind `reused` ones each."""

    rows: int
    new: int
    reused: int


ASSUMED_WEIGHT = 0.3
"""Of what is assumed of prompts that are too long to be timed, against 1 for what was timed."""

ATTENTION_COST = 3.0
"""How much longer an operation of attention takes than one of the products around it. Estimate: 1.5 to 5."""

SHAPES = (
    Shape(8, 1, 255),
    Shape(1, 256, 0),
    Shape(1, 1, 63),
    Shape(1, 32, 0),
    Shape(8, 1, 1023),
    Shape(1, 256, 1024),
    Shape(32, 1, 127),
    Shape(1, 1024, 0),
)
"""Decode and prefill in turn. Batch and context vary independently of each other, as do new and reused tokens."""


def measure(
    device: Device,
    *,
    kv_tokens: int,
    page_tokens: int,
    max_context_tokens: int,
    max_rows: int,
    max_step_tokens: int,
    budget_s: float,
) -> list[fitting.Measurement]:
    """Passes that ran alone on their lane. Raises DeviceError where one fails or does not end."""
    measured: list[fitting.Measurement] = []
    end_s = device.clock.now_s() + budget_s
    for shape in SHAPES:
        length = shape.new + shape.reused
        held_tokens = shape.rows * -(-length // page_tokens) * page_tokens
        fits = held_tokens <= kv_tokens and length <= max_context_tokens
        if not fits or shape.rows > max_rows or shape.rows * shape.new > max_step_tokens:
            continue
        rows = tuple(_rows(shape, page_tokens))
        for lane in _lanes(device, decode=shape.new == 1):
            if device.clock.now_s() > end_s:
                log.info("calibration: %d passes in %.1f s, the time is up", len(measured), budget_s)
                return measured
            measured.append(fitting.Measurement(load_of(rows), lane.sms, _time(device, lane, rows)))
    return measured


def assume(measured: Sequence[fitting.Measurement], pairs_share: float) -> list[fitting.Measurement]:
    """What the times of short prompts say about long ones and long contexts, by the shape of the model.

    `pairs_share` is the arithmetic of one query and one key in that of one token. Without it a few short prompts
    would have to tell a square from a line.
    """
    assumed = []
    for sms in {m.sms for m in measured}:
        alone = sorted(
            (m.load.new_tokens, m.seconds)
            for m in measured
            if m.sms == sms and m.load.kind is Kind.PREFILL and not m.load.new_times_reused
        )
        if len(alone) < 2:
            continue
        (few, few_s), (many, many_s) = alone[0], alone[-1]
        token_s = max(0.0, many_s - few_s) / (many - few)
        for new, reused in ((4 * many, 0), (many, 16 * many)):
            pairs = new * (reused + new / 2)
            seconds = few_s + token_s * (new - few + ATTENTION_COST * pairs_share * pairs)
            assumed.append(fitting.Measurement(Load.prefill([(new, reused)]), sms, seconds, ASSUMED_WEIGHT))
    return assumed


def _lanes(device: Device, *, decode: bool) -> Iterator[Lane]:
    """Of the sizes that a phase may have, the whole device last."""
    splits = device.splits
    chosen = {0, len(splits) // 2, len(splits) - 1} if len(splits) >= MOST_SIZES else set(range(len(splits)))
    for index in sorted(chosen):
        yield device.lanes(splits[index])[0 if decode else 1]
    yield device.whole


def _rows(shape: Shape, page_tokens: int) -> Iterator[Row]:
    pages = -(-(shape.new + shape.reused) // page_tokens)
    for index in range(shape.rows):
        history = [1] * (shape.new + shape.reused)
        yield Row(
            f"calibration-{index}",
            history[shape.reused :],
            shape.reused,
            range(index * pages, (index + 1) * pages),
            Draw(wire.Sampling(max_tokens=1, temperature=0.0), history, len(history)),
        )


def _time(device: Device, lane: Lane, rows: Sequence[Row]) -> float:
    work = Pass(tuple(rows), ()) if len(rows[0].token_ids) == 1 else Pass((), tuple(rows))
    seconds = []
    for _ in range(REPEATS):
        event = lane.launch(work)
        if not device.wait([event], PASS_TIMEOUT_S):
            raise DeviceError(f"a pass of {len(rows)} rows did not end within {PASS_TIMEOUT_S:g} s")
        seconds.append(event.results().pass_s)
    for row in rows:
        device.release(row.request_id)  # of the next shape it has other pages
    return min(seconds)
