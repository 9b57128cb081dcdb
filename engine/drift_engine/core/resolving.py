"""From what a node was asked (`NodeOptions`, may say auto) to what the core does (`CoreConfig`, never does).

The rules are pure: they take the machine as a value, so they are tested without one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from drift_engine import launches, wire
from drift_engine.core.limits import CoreLimits
from drift_engine.devices.base import Device
from drift_engine.errors import CapacityError, OptionsError
from drift_engine.options import NodeOptions, Share
from drift_engine.scheduling import batch_table, splits

AUTO_CONTEXTS = 2
"""A CPU node's KV cache holds this many requests of full length, unless memory is short: many chats and their reuse,
and a node with drift-tiny (32k tokens, 336 MB of KV) stays below its 1.2 GB."""

CPU_KV_SHARE = 0.25
"""Most of the free memory that a CPU node takes for KV; the machine serves others too."""

CUDA_KV_SHARE = 0.85
"""Of the memory left beside the weights; the rest is activations, graphs and the allocator's slack."""

MAX_STEP_TOKENS = {"cpu": 2048, "cuda": 8192, "sim": 8192}
"""Bound of a step's activations. CPU cores are saturated long before it. On a GPU longer passes read the weights less
often; 8,192 is what vLLM takes on H100 and later, with 0.5 GB of activations for an 8B model. Not yet measured."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What the device offers, after the weights are in."""

    cores: int
    cuda: bool
    free_bytes: int


@dataclass(frozen=True, slots=True)
class CoreConfig:
    device: str
    dtype: str
    threads: int
    max_model_len_tokens: int
    page_tokens: int
    kv_pages: int
    mode: wire.Mode
    max_running: int
    max_step_tokens: int
    chunk_tokens: int | None


def device_of(options: NodeOptions, *, cuda: bool) -> str:
    """Raises OptionsError where a GPU is asked for and none is there."""
    if options.device == "cuda" and not cuda:
        raise OptionsError("device: cuda was asked for, but torch sees no NVIDIA GPU; use cpu or auto")
    if options.device == "auto":
        return "cuda" if cuda else "cpu"
    return options.device


def dtype_of(options: NodeOptions, device: str) -> str:
    """float32 on a CPU, where results are bit-identical whatever the batch; bfloat16 on a GPU, simulated or not."""
    if options.dtype == "auto":
        return "float32" if device == "cpu" else "bfloat16"
    return options.dtype


def context_of(options: NodeOptions, longest_context_tokens: int) -> int:
    """Raises OptionsError above what the model was trained for."""
    asked = options.max_model_len_tokens
    if asked is not None and asked > longest_context_tokens:
        raise OptionsError(
            f"max_model_len_tokens: {asked} is above the model's longest context, {longest_context_tokens}"
        )
    return asked or longest_context_tokens


def resolve(
    options: NodeOptions, machine: Machine, *, context_tokens: int, bytes_per_page: int
) -> CoreConfig:
    """Raises CapacityError when not even one short request would fit."""
    device = device_of(options, cuda=machine.cuda)
    page_tokens = options.page_tokens
    free_bytes = machine.free_bytes // options.share.of
    if options.kv_bytes is not None:
        pages = options.kv_bytes // bytes_per_page
    elif device == "cuda":
        pages = int(free_bytes * CUDA_KV_SHARE) // bytes_per_page
    else:
        enough = AUTO_CONTEXTS * -(-context_tokens // page_tokens)
        pages = min(enough, int(free_bytes * CPU_KV_SHARE) // bytes_per_page)
    if pages < 2:
        raise CapacityError(
            f"kv_bytes: {options.kv_bytes or free_bytes} bytes hold {max(pages, 0)} pages of "
            f"{page_tokens} tokens ({bytes_per_page} bytes each); at least 2 are needed"
        )
    return CoreConfig(
        device=device,
        dtype=dtype_of(options, device),
        threads=options.threads or max(1, machine.cores // options.share.of),
        max_model_len_tokens=min(context_tokens, pages * page_tokens),
        page_tokens=page_tokens,
        kv_pages=pages,
        mode=options.mode,
        max_running=options.max_running,
        max_step_tokens=max_step_tokens(options, device),
        chunk_tokens=options.chunk_tokens,
    )


def own_cores(share: Share, cores: Sequence[int]) -> Sequence[int]:
    """Those that a node may keep to itself; one that others have, too, where there are more nodes than cores."""
    count = max(1, len(cores) // share.of)
    first = share.place * count % len(cores)
    return cores[first : first + count]


def max_step_tokens(options: NodeOptions, device: str) -> int:
    """Every running request and one more must fit into a step."""
    return max(MAX_STEP_TOKENS[device], options.max_running + 1)


def limits(
    options: NodeOptions,
    *,
    max_model_len_tokens: int,
    max_step_tokens: int,
    eos_token_ids: Iterable[int],
    layers: int,
) -> CoreLimits:
    """The core's, whatever its device."""
    return CoreLimits(
        max_running=options.max_running,
        max_model_len_tokens=max_model_len_tokens,
        max_step_tokens=max_step_tokens,
        chunk_tokens=options.chunk_tokens,
        eos_token_ids=frozenset(eos_token_ids),
        layers=layers,
        kept_spans=launches.KEPT_SPANS if options.timeline_file is not None else 0,
        slack=options.slack,
        min_dwell_s=options.min_dwell_s,
        batch_table=options.batch_table,
        batch_table_context_tokens=options.batch_table_context_tokens,
    )


def legal_splits(options: NodeOptions, device: Device) -> tuple[wire.Split, ...]:
    """Those that the mode may take. Raises OptionsError where it needs one and there is none."""
    mode = options.mode
    legal = splits.usable(mode, device.splits, device.whole.sms)
    if splits.needed(mode) and not legal:
        wanted = "with two lanes over all of it" if mode is wire.Mode.OVERLAP else "that can be split"
        raise OptionsError(
            f"mode: {mode} needs a device {wanted}, which this one is not ({device.sharing_reason}); "
            "take auto or fused"
        )
    try:
        batch_table.read(options.batch_table, legal)
    except ValueError as error:
        raise OptionsError(str(error)) from error
    return legal
