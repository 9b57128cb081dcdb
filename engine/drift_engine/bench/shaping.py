"""Turns a recorded workload into the one to run: faster or slower, shorter or longer, a part of it, or synthetic.

Pure functions from arrivals to arrivals, between `traces` and `preparing`. Lengths scale block by block, so that two
prompts which shared k blocks still share k blocks.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import msgspec

from drift_engine.bench.traces import Arrival, Trace


class Shape(msgspec.Struct, frozen=True):
    """What to make of a trace. Raises ValueError that names the field, the value and the limit."""

    rate_scale: float = 1.0
    """2 sends the same requests in half the time."""
    length_scale: float = 1.0
    """Of prompts, of the blocks that they share, and of outputs."""
    duration_s: float | None = None
    """Keep what arrives within so many seconds of the run (after `rate_scale`)."""
    requests: int | None = None
    spread: bool = False
    """Spread the requests of one grid bin evenly over the bin; otherwise its bursts stay."""

    def __post_init__(self) -> None:
        limits = (
            ("rate_scale", self.rate_scale),
            ("length_scale", self.length_scale),
            ("duration_s", self.duration_s),
            ("requests", self.requests),
        )
        for field, value in limits:
            if value is not None and not value > 0:
                raise ValueError(f"{field}: {value} is not above 0")


def shape(trace: Trace, wish: Shape) -> tuple[Arrival, ...]:
    """The arrivals to run, renumbered from 0 in order of time."""
    arrivals: Sequence[Arrival] = trace.arrivals
    if wish.spread and trace.bin_s:
        arrivals = spread_bins(arrivals, trace.bin_s)
    kept = []
    for arrival in arrivals[: wish.requests]:
        at_s = arrival.at_s / wish.rate_scale
        if wish.duration_s is not None and at_s >= wish.duration_s:
            break
        kept.append(msgspec.structs.replace(scale_lengths(arrival, wish.length_scale), at_s=at_s))
    return tuple(msgspec.structs.replace(arrival, index=index) for index, arrival in enumerate(kept))


def spread_bins(arrivals: Iterable[Arrival], bin_s: float) -> list[Arrival]:
    """Requests of one instant at equal distances over the bin that the instant stands for."""
    bins: dict[float, list[Arrival]] = {}
    for arrival in arrivals:
        bins.setdefault(arrival.at_s, []).append(arrival)
    return [
        msgspec.structs.replace(arrival, at_s=at_s + bin_s * place / len(together))
        for at_s, together in sorted(bins.items())
        for place, arrival in enumerate(together)
    ]


def scale_lengths(arrival: Arrival, scale: float) -> Arrival:
    """A shorter or longer copy; every part keeps at least one token (texts: one character)."""
    if scale == 1.0:
        return arrival
    if arrival.text is not None:
        # A prefix of each text: turns that grow by appending still start with the turn before.
        return msgspec.structs.replace(
            arrival,
            text=_scaled_text(arrival.text, scale),
            output_text=_scaled_text(arrival.output_text or "", scale),
        )
    block_tokens = max(1, round(arrival.block_tokens * scale))
    full = len(arrival.block_ids) - 1
    last = arrival.prompt_tokens - full * arrival.block_tokens
    last_tokens = min(block_tokens, max(1, round(last * scale)))
    return msgspec.structs.replace(
        arrival,
        block_tokens=block_tokens,
        prompt_tokens=full * block_tokens + last_tokens,
        output_tokens=max(1, round(arrival.output_tokens * scale)),
    )


def _scaled_text(text: str, scale: float) -> str:
    if scale > 1.0:
        raise ValueError(f"length_scale: {scale} is above 1, recorded texts can only be shortened")
    return text[: max(1, round(len(text) * scale))]


def poisson(
    *, rate_rps: float, requests: int, prompt_tokens: int, output_tokens: int, seed: int
) -> tuple[Arrival, ...]:
    """Independent requests of equal length with exponential gaps.

    The gaps are normalised so that the last one ends at requests / rate_rps: two seeds then offer the same rate
    (`vllm bench serve` does the same).
    """
    for field, value in (
        ("rate_rps", rate_rps),
        ("requests", requests),
        ("prompt_tokens", prompt_tokens),
        ("output_tokens", output_tokens),
    ):
        if not value > 0:
            raise ValueError(f"{field}: {value} is not above 0")
    draw = random.Random(seed)  # noqa: S311 - a workload, not a secret
    gaps = [draw.expovariate(1.0) for _ in range(requests)]
    stretch = requests / rate_rps / sum(gaps)
    arrivals, at_s = [], 0.0
    for index, gap in enumerate(gaps):
        arrivals.append(
            Arrival(
                index=index,
                at_s=at_s,
                prompt_tokens=prompt_tokens,
                output_tokens=output_tokens,
                block_ids=(index,),
                block_tokens=prompt_tokens,
            )
        )
        at_s += gap * stretch
    return tuple(arrivals)
