"""The start of a core that computes: weights, KV cache, lanes, latency model. `serving` runs it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from drift_engine import models, wire
from drift_engine.cache import KvCache
from drift_engine.clock import MonotonicClock
from drift_engine.core import calibrating, learned, resolving
from drift_engine.core.channel import Messages
from drift_engine.core.grammars import Grammars
from drift_engine.core.loop import Core
from drift_engine.core.serving import Started
from drift_engine.devices import contention, sharing
from drift_engine.devices.base import Device
from drift_engine.devices.cpu import CpuDevice
from drift_engine.devices.cuda import open_device
from drift_engine.devices.runner import Runner
from drift_engine.errors import OptionsError
from drift_engine.latency import LatencyModel
from drift_engine.models.config import ModelConfig
from drift_engine.models.kv_store import KvStore
from drift_engine.models.transformer import Transformer
from drift_engine.options import NodeOptions
from drift_engine.scheduling import splits

log = logging.getLogger(__name__)


def start(options: NodeOptions, model_path: Path, channel: Messages) -> Started:
    """Loads the model and builds the core around it. Raises EngineError."""
    sharing.prepare()
    start_s = time.monotonic()
    meter = contention.ProcMeter()
    usage = meter.read()
    # A second OpenMP team beside the lane's would be more threads than cores: libgomp then puts waiting threads to
    # sleep instead of spinning, and a decode step of drift-tiny takes 36 ms instead of 16 (32 rows, 2 cores).
    torch.set_num_threads(1)
    cuda = torch.cuda.is_available()
    device_name = resolving.device_of(options, cuda=cuda)
    torch_device = torch.device(device_name)
    dtype = getattr(torch, resolving.dtype_of(options, device_name))
    model_config = models.read_config(model_path)
    context = resolving.context_of(options, model_config.longest_context_tokens)

    def progress(done: int, total: int) -> None:
        channel.send(wire.Loading("weights", done, total))

    model = models.load(model_path, torch_device, dtype, progress, max_context_tokens=context)
    config = resolving.resolve(
        options,
        machine(torch_device),
        context_tokens=context,
        bytes_per_page=KvStore.bytes_per_page(model_config, options.page_tokens, dtype),
    )
    kv = KvStore.allocate(model_config, config.kv_pages, config.page_tokens, torch_device, dtype)
    grammars = Grammars(model_path, model_config.vocab_size, model_config.eos_token_ids)
    device = _device(options, config, model, kv, meter, usage)
    try:
        legal = resolving.legal_splits(options, device)
    except OptionsError:
        device.close()
        raise
    latency, keep = _learned(options, device, config, model_config, channel)
    core = Core(
        device,
        KvCache(config.kv_pages, config.page_tokens, prefix=options.prefix_cache),
        channel,
        grammars,
        config.mode,
        resolving.limits(
            options,
            max_model_len_tokens=config.max_model_len_tokens,
            max_step_tokens=config.max_step_tokens,
            eos_token_ids=model_config.eos_token_ids,
            layers=model_config.num_layers,
        ),
        options.slo.targets,
        latency,
    )
    ready = wire.Ready(
        architecture=model_config.architecture,
        parameters=model_config.num_parameters,
        vocab_size=model_config.vocab_size,
        max_model_len_tokens=config.max_model_len_tokens,
        eos_token_ids=tuple(model_config.eos_token_ids),
        device=config.device,
        hardware=_hardware(torch_device),
        dtype=config.dtype,
        threads=config.threads,
        page_tokens=config.page_tokens,
        kv_pages=config.kv_pages,
        kv_bytes=config.kv_pages * KvStore.bytes_per_page(model_config, config.page_tokens, dtype),
        mode=config.mode,
        load_s=time.monotonic() - start_s,
        splits=legal,
        sharing=device.sharing,
        sharing_reason=device.sharing_reason,
    )
    return Started(core, device, ready, latency, keep)


def machine(device: torch.device) -> resolving.Machine:
    """What is there now."""
    if device.type == "cuda":
        free_bytes, _ = torch.cuda.mem_get_info(device)
    else:
        free_bytes = psutil.virtual_memory().available
    return resolving.Machine(len(os.sched_getaffinity(0)), device.type == "cuda", free_bytes)


def _device(
    options: NodeOptions,
    config: resolving.CoreConfig,
    model: Transformer,
    kv: KvStore,
    meter: contention.Meter,
    since: contention.Usage,
) -> Device:
    clock = MonotonicClock()
    runner = Runner(model, kv, clock, max_requests=config.max_running)
    if config.device == "cuda":
        return open_device(
            runner,
            clock,
            _share(config.mode),
            max_running=config.max_running,
            max_context_tokens=config.max_model_len_tokens,
        )
    cores = resolving.own_cores(options.share, sorted(os.sched_getaffinity(0)))
    return CpuDevice(runner, clock, threads=config.threads, cores=cores, meter=meter, since=since)


def _share(mode: wire.Mode) -> sharing.Share:
    """How the mode wants its GPU; partitions that it would not use waste memory."""
    if mode is wire.Mode.OVERLAP:
        return sharing.overlapping
    return sharing.best if mode is wire.Mode.AUTO or splits.needed(mode) else sharing.alone


def _learned(
    options: NodeOptions, device: Device, config: resolving.CoreConfig, model: ModelConfig, channel: Messages
) -> tuple[LatencyModel, Callable[[], None]]:
    """The latency model, and how to keep what it learns."""
    path = Path(options.latency_file) if options.latency_file is not None else None
    hardware = _hardware(torch.device(config.device))
    if config.device == "cuda":
        hardware += f", shared {device.sharing}"  # lanes of the same SM count differ by what keeps them apart
    identity = learned.identity(config, model, hardware)
    latency = learned.read(path, identity) if path is not None else None
    if latency is None:
        channel.send(wire.Loading("calibration", 0, 1))
        bounds = calibrating.Bounds(
            kv_tokens=config.kv_pages * config.page_tokens,
            page_tokens=config.page_tokens,
            max_context_tokens=config.max_model_len_tokens,
            max_rows=config.max_running,
            max_step_tokens=config.max_step_tokens,
            budget_s=calibrating.BUDGET_S[config.device],
        )
        pairs_share = 4 * model.num_layers * model.q_size / (2 * model.num_parameters)
        latency = learned.calibrate(device, bounds, pairs_share)
        channel.send(wire.Loading("calibration", 1, 1))
    return latency, (lambda: learned.write(path, identity, latency)) if path is not None else (lambda: None)


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return os.uname().machine
