"""`python -m drift_engine.core.surveying`: what passes take on this machine, for `drift calibrate`.

Writes JSON lines: one `Curves` for every lane size, then one `Timed` for each pass of a grid, as they come. Starts a
core like a node does, so it measures what the planner would be told.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from drift_engine import options, sources, wire
from drift_engine.core import calibrating, starting
from drift_engine.core.serving import Started
from drift_engine.errors import EngineError
from drift_engine.latency import LatencyModel
from drift_engine.latency.loads import Load

DECODE_CONTEXT_TOKENS = 1024
PREFILLS_TOKENS = (128, 512, 2048)
DECODES_ROWS = (1, 8, 32)


class Curves(msgspec.Struct, frozen=True, tag=True):
    """The fitted formulas on lanes of `sms` SMs, at common loads."""

    sms: int
    prefill_s: dict[int, float]  # by new tokens, nothing reused
    decode_s: dict[int, float]  # by rows of 1,024 tokens each
    beside_prefill_s: dict[int, float]  # the same rows beside a prefill of 512 tokens: a bound
    prefill_tokens_per_s: float


class Timed(msgspec.Struct, frozen=True, tag=True):
    """A pass alone on its lane, the quicker of two."""

    sms: int
    rows: int
    new_tokens: int  # of all rows
    context_tokens: int  # of decode rows, together
    reused_tokens: int  # of all prefill rows
    seconds: float
    predicted_s: float


class Head(msgspec.Struct, frozen=True, tag=True):
    """What was measured."""

    hardware: str
    device: str
    dtype: str
    architecture: str
    parameters: int
    splits: tuple[wire.Split, ...]


Line = Head | Curves | Timed


class Quiet:
    """A channel that nobody listens to."""

    def send(self, message: wire.FromCore) -> None:
        """Nobody hears it."""

    def flush(self) -> None:
        """Nothing waits."""

    def receive(self, timeout_s: float) -> list[wire.ToCore]:
        return []


def survey(started: Started, budget_s: float) -> Iterator[Line]:
    """Raises DeviceError where a pass fails."""
    ready, latency, device = started.ready, started.latency, started.device
    yield Head(ready.hardware, ready.device, ready.dtype, ready.architecture, ready.parameters, ready.splits)
    parts = {part for split in ready.splits for part in (split.decode_sms, split.prefill_sms)}
    for sms in sorted({*parts, device.whole.sms}):
        yield curves(latency, sms)
    if ready.device == "sim":  # there is nothing to time: its curves were fitted to what it will take
        return
    bounds = calibrating.Bounds(
        kv_tokens=ready.kv_pages * ready.page_tokens,
        page_tokens=ready.page_tokens,
        max_context_tokens=ready.max_model_len_tokens,
        max_rows=max(shape.rows for shape in calibrating.GRID),
        max_step_tokens=max(PREFILLS_TOKENS),
        budget_s=budget_s,
    )
    for measured in calibrating.measure(device, bounds, calibrating.GRID).alone:
        load = measured.load
        yield Timed(
            measured.sms,
            load.decode_rows or load.prefill_rows,
            load.new_tokens,
            load.decode_context_tokens,
            load.new_times_reused * load.prefill_rows // load.new_tokens if load.new_tokens else 0,
            measured.seconds,
            latency.pass_s(load, measured.sms) or 0.0,
        )


def curves(latency: LatencyModel, sms: int) -> Curves:
    prefills = {tokens: Load.prefill([(tokens, 0)]) for tokens in PREFILLS_TOKENS}
    decodes = {rows: Load.decode(rows, rows * DECODE_CONTEXT_TOKENS) for rows in DECODES_ROWS}
    neighbour = prefills[512]
    return Curves(
        sms,
        {tokens: latency.pass_s(load, sms) or 0.0 for tokens, load in prefills.items()},
        {rows: latency.pass_s(load, sms) or 0.0 for rows, load in decodes.items()},
        {rows: latency.beside_s(load, sms, neighbour) or 0.0 for rows, load in decodes.items()},
        latency.prefill_tokens_per_s(sms),
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="drift_engine.core.surveying")
    parser.add_argument("--options", required=True, help="NodeOptions as JSON")
    parser.add_argument("--budget-s", type=float, default=60.0, help="after which no further pass is timed")
    arguments = parser.parse_args()
    node_options = options.parse(arguments.options)
    logging.basicConfig(level=node_options.log_level.upper(), format="%(levelname)s %(name)s: %(message)s")
    try:
        path: Path = sources.resolve(node_options.model, node_options.revision)
        started = starting.choose(node_options)(node_options, path, Quiet())
        try:
            for line in survey(started, arguments.budget_s):
                sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
                sys.stdout.buffer.flush()
        finally:
            started.device.close()
    except EngineError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
