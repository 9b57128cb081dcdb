"""Measures a few passes on the device's lanes before the node serves, so that the planner need not guess.

The passes compute nothing anybody reads: they write into KV pages that nobody holds yet. The most telling ones come
first, on every lane size, because a large model on a small device runs out of the time that there is.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from drift_engine import wire
from drift_engine.devices.base import Device, Draw, Event, Lane, Pass, Row, load_of
from drift_engine.errors import DeviceError
from drift_engine.latency import Kind, Load, fitting

log = logging.getLogger(__name__)

BUDGET_S = {"cpu": 5.0, "cuda": 60.0}
"""After which no further pass is started. drift-tiny's grid takes 1 s on 2 cores; of a 120M model it takes 5."""

REPEATS = 2
"""Of which the quicker counts: the first of a shape also pays for what is made once."""

PASS_TIMEOUT_S = 120.0
"""Of one pass: decode steps of an 8B model on 2 cores, the slowest that anybody waits for, take some 5 s."""

MOST_BESIDE = 32
"""Decode passes beside one prefill: more than a prefill of 256 tokens lasts on any lane that was tried."""

MOST_SIZES = 3
"""SM counts to measure of the split lanes of each phase: fewest, middle, most. Those between are interpolated."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Rows of `new` tokens behind `reused` ones each."""

    rows: int
    new: int
    reused: int

    def pages(self, page_tokens: int) -> int:
        """Of one row."""
        return -(-(self.new + self.reused) // page_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What passes may be, and for how long to go on."""

    kv_tokens: int
    page_tokens: int
    max_context_tokens: int
    max_rows: int
    max_step_tokens: int
    budget_s: float


class Measured(NamedTuple):
    """Passes alone on their lane, and (load, SM count, seconds) of passes beside another lane's work."""

    alone: list[fitting.Measurement]
    beside: list[tuple[Load, int, float]]


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
    Shape(1, 8192, 0),
    Shape(4, 1, 16383),
    Shape(1, 4096, 32768),
)
"""Decode and prefill in turn. Batch and context vary independently of each other, as do new and reused tokens. The
last ones are for GPUs, whose passes take them: without them a prompt of 8,192 tokens behind 40,000 was predicted to
take 2.5 times as long as it does (34B, simulated H200)."""

LONG_TOKENS = 4096
"""A prefill that tells a square from a line by itself."""


GRID = tuple(
    [Shape(rows, 1, context - 1) for rows in (1, 2, 4, 8, 16, 32, 64) for context in (64, 512, 2048, 8192)]
    + [Shape(1, new, reused) for new in (16, 64, 128, 256, 512, 1024, 2048) for reused in (0, 1024, 8192)]
    + [Shape(rows, 128, 0) for rows in (2, 4, 8)]
)
"""For people who want to see the curves: every phase over its whole range."""


def measure(device: Device, bounds: Bounds, shapes: Sequence[Shape] = SHAPES) -> Measured:
    """Passes of the shapes on the lanes, until the time is up. Raises DeviceError where one fails or does not end."""
    found = Measured([], [])
    end_s = device.clock.now_s() + bounds.budget_s
    page_tokens = bounds.page_tokens

    def fits(*shapes: Shape) -> bool:
        held_tokens = sum(shape.rows * shape.pages(page_tokens) * page_tokens for shape in shapes)
        return held_tokens <= bounds.kv_tokens and all(
            shape.new + shape.reused <= bounds.max_context_tokens
            and shape.rows <= bounds.max_rows
            and shape.rows * shape.new <= bounds.max_step_tokens
            for shape in shapes
        )

    for index, shape in enumerate(shapes):
        if not fits(shape):
            continue
        rows = tuple(_rows(shape, page_tokens))
        for lane in _lanes(device, decode=shape.new == 1):
            if device.clock.now_s() > end_s:
                log.info(
                    "calibration: %d passes in %.1f s, the time is up", len(found.alone), bounds.budget_s
                )
                return found
            found.alone.append(fitting.Measurement(load_of(rows), lane.sms, _time(device, lane, rows)))
        if index == 1 and fits(*SHAPES[:2]):  # both phases are known alone
            for split in _splits(device):
                found.beside.extend(_beside(device, split, page_tokens))
    return found


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
        if len(alone) < 2 or alone[-1][0] >= LONG_TOKENS:
            continue
        (few, few_s), (many, many_s) = alone[0], alone[-1]
        token_s = max(0.0, many_s - few_s) / (many - few)
        for new, reused in ((4 * many, 0), (many, 16 * many)):
            pairs = new * (reused + new / 2)
            seconds = few_s + token_s * (new - few + ATTENTION_COST * pairs_share * pairs)
            assumed.append(fitting.Measurement(Load.prefill([(new, reused)]), sms, seconds, ASSUMED_WEIGHT))
    return assumed


def _splits(device: Device) -> list[wire.Split]:
    splits = device.splits
    chosen = {0, len(splits) // 2, len(splits) - 1} if len(splits) >= MOST_SIZES else set(range(len(splits)))
    return [splits[index] for index in sorted(chosen)]


def _lanes(device: Device, *, decode: bool) -> Iterator[Lane]:
    """Of the sizes that a phase may have, the whole device last; alone, a part that is not smaller is no other."""
    for split in _splits(device):
        lane = device.lanes(split)[0 if decode else 1]
        if lane.sms < device.whole.sms:
            yield lane
    yield device.whole


def _beside(device: Device, split: wire.Split, page_tokens: int) -> Iterator[tuple[Load, int, float]]:
    """Decode passes for as long as a prefill runs on the other lane, and that prefill."""
    decode_lane, prefill_lane = device.lanes(split)
    decode = tuple(_rows(SHAPES[0], page_tokens))
    first_page = SHAPES[0].rows * SHAPES[0].pages(page_tokens)
    prefill = tuple(_rows(SHAPES[1], page_tokens, first_page, "neighbour"))
    running = prefill_lane.launch(Pass((), prefill))
    for _ in range(MOST_BESIDE):
        event = decode_lane.launch(Pass(decode, ()))
        _await(device, event, len(decode))
        if running.done():
            break  # this one was alone for a part of its time
        yield load_of(decode), decode_lane.sms, event.results().pass_s
    _await(device, running, len(prefill))
    yield load_of(prefill), prefill_lane.sms, running.results().pass_s
    for row in decode + prefill:
        device.release(row.request_id)


def _rows(shape: Shape, page_tokens: int, first_page: int = 0, name: str = "calibration") -> Iterator[Row]:
    pages = shape.pages(page_tokens)
    for index in range(shape.rows):
        history = [1] * (shape.new + shape.reused)
        start = first_page + index * pages
        yield Row(
            f"{name}-{index}",
            history[shape.reused :],
            shape.reused,
            range(start, start + pages),
            Draw(wire.Sampling(max_tokens=1, temperature=0.0), history, len(history)),
        )


def _await(device: Device, event: Event, rows: int) -> None:
    if not device.wait([event], PASS_TIMEOUT_S):
        raise DeviceError(f"a pass of {rows} rows did not end within {PASS_TIMEOUT_S:g} s")


def _time(device: Device, lane: Lane, rows: Sequence[Row]) -> float:
    work = Pass(tuple(rows), ()) if len(rows[0].token_ids) == 1 else Pass((), tuple(rows))
    seconds = []
    for _ in range(REPEATS):
        event = lane.launch(work)
        _await(device, event, len(rows))
        seconds.append(event.results().pass_s)
    for row in rows:
        device.release(row.request_id)  # of the next shape it has other pages
    return min(seconds)
