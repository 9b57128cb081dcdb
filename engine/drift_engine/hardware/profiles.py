"""What is known about a GPU: its size, its peaks, and coefficients fitted to measured operations.

A profile is a JSON file in `profiles/`, written by `benchmarks/hardware/fit.py` and read by `named`. Times are those
of one operation on the whole GPU; `roofline` scales them to a lane's SMs with `Scaling`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import msgspec

from drift_engine import wire
from drift_engine.errors import OptionsError

FOLDER = Path(__file__).with_name("profiles")


class Gemm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """launch + depth + (compute ** sharpness + memory ** sharpness) ** (1 / sharpness): a maximum, with a soft knee
    where both take equally long."""

    launch_s: float
    per_depth_s: float  # times k: the loop over k that one tile can't spread over SMs
    flops_per_s: float  # in bfloat16; other formats by their peak
    bytes_per_s: float  # weights and activations
    sharpness: float


class ContextAttention(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of new tokens over what is before them. A score is one visible pair of query and key in one query head."""

    launch_s: float
    per_score_s: float
    per_score_value_s: float  # times head_dim
    bytes_per_s: float  # of queries, keys, values and outputs of the new tokens


class GenerationAttention(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of one token per row over its context: reading KV and the work per row and KV head, with a soft knee."""

    launch_s: float
    bytes_per_s: float  # of the keys and values that are read
    per_row_head_s: float
    sharpness: float


class AllReduce(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    launch_s: float
    bytes_per_s: float  # of the message


class Scaling(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From the whole GPU to a lane. Arithmetic is proportional to a lane's SMs.

    Memory grows with them up to a share of all SMs. Both shares come from the decode coefficients that MuxWise's
    authors published for H800 (`benchmarks/hardware/scaling.py` fits them); an estimate for other kernels.
    """

    weights_saturating_share: float  # streams of weights and activations
    attention_saturating_share: float  # generation attention, whose kernels have few bytes in flight per SM


class Contention(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a neighbour costs. See `roofline.Roofline.slowdown`."""

    per_demand: float  # slower per share of the device's bandwidth that the neighbour uses
    bound: float  # slower at most, as a factor


class Hardware(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One GPU."""

    name: str
    estimated: bool  # scaled from another GPU's measurements
    sms: int
    sm_group: int  # smallest step of a split; the last group takes what is left
    memory_bytes: int
    bytes_per_s: float  # peak by the data sheet
    flops_per_s: Mapping[str, float]  # peak by number format, dense, by the data sheet
    gemm: Gemm
    context_attention: ContextAttention
    generation_attention: GenerationAttention
    element_wise_launch_s: float
    all_reduce: Mapping[int, AllReduce]  # by number of GPUs
    scaling: Scaling
    contention: Contention
    sources: tuple[str, ...]


def names() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in FOLDER.glob("*.json")))


@cache
def named(name: str) -> Hardware:
    """The profile of a known GPU. Raises OptionsError."""
    if name not in names():
        raise OptionsError(f"hardware: {name!r} is unknown; known: {', '.join(names())}")
    return msgspec.json.decode((FOLDER / f"{name}.json").read_bytes(), type=Hardware)


def splits(hardware: Hardware) -> tuple[wire.Split, ...]:
    """All splits in whole groups, fewest decode SMs first. Both parts have at least one group."""
    groups = hardware.sms // hardware.sm_group
    decode_sms = (count * hardware.sm_group for count in range(1, groups))
    return tuple(wire.Split(sms, hardware.sms - sms) for sms in decode_sms)
