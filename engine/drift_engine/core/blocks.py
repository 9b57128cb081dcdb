"""The launches that computed a traced request's prompt, as its trace tells them: a bounded number."""

from __future__ import annotations

from collections.abc import Iterable

from drift_engine import wire
from drift_engine.launches import Span

MOST_BLOCKS = 16
"""Told with one output; later launches are added to the last block. A prompt of 8,000 tokens in chunks of 512 fits,
and so does one that was launched in layers beside 16 decode steps. To make a span of a block takes the api process
60 us, in which no token is handed on."""


def add(blocks: list[wire.Block], launches: Iterable[Span], tokens: int) -> None:
    """Launches that computed so many tokens of the request, in the order in which they ended."""
    for launch in launches:
        block = wire.Block(
            launch.lane,
            launch.start_s,
            launch.end_s,
            tokens if launch.first_layer == 0 else 0,
            launch.decode_rows,
            launch.first_layer,
            launch.end_layer,
        )
        if len(blocks) < MOST_BLOCKS:
            blocks.append(block)
        else:
            blocks[-1] = _joined(blocks[-1], block)


def _joined(one: wire.Block, other: wire.Block) -> wire.Block:
    return wire.Block(
        other.lane,
        one.start_s,
        max(one.end_s, other.end_s),
        one.tokens + other.tokens,
        max(one.decode_rows, other.decode_rows),
        min(one.first_layer, other.first_layer),
        max(one.end_layer, other.end_layer),
        one.launches + other.launches,
    )
