"""Start and end of the core process: load, tell the api process, step until told to stop.

Whatever goes wrong before or during serving leaves as one `wire.Fault`, and the process exits with status 1.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil
import torch

from drift_engine import models, timelines, wire
from drift_engine.cache import KvCache
from drift_engine.clock import MonotonicClock
from drift_engine.core import learned, resolving
from drift_engine.core.channel import Channel, Messages
from drift_engine.core.grammars import Grammars
from drift_engine.core.limits import CoreLimits
from drift_engine.core.loop import Core
from drift_engine.devices import contention
from drift_engine.devices.base import Device
from drift_engine.devices.cpu import CpuDevice
from drift_engine.devices.cuda import whole_device
from drift_engine.devices.runner import Runner
from drift_engine.errors import EngineError, OptionsError
from drift_engine.latency import LatencyModel
from drift_engine.models.config import ModelConfig
from drift_engine.models.kv_store import KvStore
from drift_engine.models.transformer import Transformer
from drift_engine.options import NodeOptions
from drift_engine.scheduling import batch_table, splits

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1


def serve(address: str, options: NodeOptions, model_path: Path, parent_pid: int) -> int:
    """Runs the core until it is told to stop; returns the exit status."""
    _die_with(parent_pid)
    # the api process decides when to stop: a terminal's Ctrl-C reaches the whole group
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    channel = Channel(address)
    try:
        started = start(options, model_path, channel)
        channel.send(started.ready)
        try:
            while not started.core.stopping:
                started.core.step()
        finally:
            started.device.close()
        started.keep_latency()
        if options.timeline_file is not None:
            _write_timeline(Path(options.timeline_file), started.core)
    except EngineError as error:
        channel.send(wire.Fault(str(error)))
        return 1
    except Exception as error:
        log.exception("the core failed")
        channel.send(wire.Fault(f"the core failed: {error!r}"))
        return 1
    finally:
        channel.close()
    return 0


class Started(NamedTuple):
    core: Core
    device: Device
    ready: wire.Ready
    keep_latency: Callable[[], None]  # writes what the latency model learned, where the options name a file


def start(options: NodeOptions, model_path: Path, channel: Messages) -> Started:
    """Loads the model and builds the core around it. Raises EngineError."""
    if options.timeline_file is not None:
        timelines.check(Path(options.timeline_file))
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
    device = _device(config, model, kv, meter, usage)
    legal = splits.usable(config.mode, device.splits, device.whole.sms)
    if splits.needed(config.mode) and not legal:
        device.close()
        raise OptionsError(_unsplit(config))
    try:
        batch_table.read(options.batch_table, legal)
    except ValueError as error:
        device.close()
        raise OptionsError(str(error)) from error
    latency, keep = _learned(options, device, config, model_config, channel)
    core = Core(
        device,
        KvCache(config.kv_pages, config.page_tokens, prefix=options.prefix_cache),
        channel,
        grammars,
        config.mode,
        CoreLimits(
            max_running=config.max_running,
            max_model_len_tokens=config.max_model_len_tokens,
            max_step_tokens=config.max_step_tokens,
            chunk_tokens=config.chunk_tokens,
            eos_token_ids=frozenset(model_config.eos_token_ids),
            layers=model_config.num_layers,
            kept_spans=timelines.KEPT_SPANS if options.timeline_file is not None else 0,
            slack=options.slack,
            min_dwell_s=options.min_dwell_s,
            batch_table=options.batch_table,
            batch_table_context_tokens=options.batch_table_context_tokens,
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
    )
    return Started(core, device, ready, keep)


def machine(device: torch.device) -> resolving.Machine:
    """What is there now."""
    if device.type == "cuda":
        free_bytes, _ = torch.cuda.mem_get_info(device)
    else:
        free_bytes = psutil.virtual_memory().available
    return resolving.Machine(len(os.sched_getaffinity(0)), device.type == "cuda", free_bytes)


def _device(
    config: resolving.CoreConfig,
    model: Transformer,
    kv: KvStore,
    meter: contention.Meter,
    since: contention.Usage,
) -> Device:
    clock = MonotonicClock()
    runner = Runner(model, kv, clock, max_requests=config.max_running)
    if config.device == "cuda":
        return whole_device(
            runner, clock, max_running=config.max_running, max_context_tokens=config.max_model_len_tokens
        )
    return CpuDevice(runner, clock, threads=config.threads, meter=meter, since=since)


def _learned(
    options: NodeOptions, device: Device, config: resolving.CoreConfig, model: ModelConfig, channel: Messages
) -> tuple[LatencyModel, Callable[[], None]]:
    """The latency model, and how to keep what it learns."""
    path = Path(options.latency_file) if options.latency_file is not None else None
    identity = learned.identity(config, model, _hardware(torch.device(config.device)))
    latency = learned.read(path, identity) if path is not None else None
    if latency is None:
        channel.send(wire.Loading("calibration", 0, 1))
        latency = learned.calibrate(device, config, model)
        channel.send(wire.Loading("calibration", 1, 1))
    return latency, (lambda: learned.write(path, identity, latency)) if path is not None else (lambda: None)


def _write_timeline(path: Path, core: Core) -> None:
    try:
        timelines.write(path, core.spans)
    except OSError as error:
        log.warning("timeline: %s can't be written: %s", path, error.strerror)


def _unsplit(config: resolving.CoreConfig) -> str:
    """Why the mode cannot be served on this device."""
    if config.device == "cuda":
        device = "a GPU in this version"
    else:
        device = f"a CPU with {config.threads} thread{'s' * (config.threads > 1)} on {os.cpu_count()} core(s)"
    wanted = "offers two lanes over all of it" if config.mode is wire.Mode.OVERLAP else "can be split"
    verb = "does not" if config.mode is wire.Mode.OVERLAP else "cannot"
    return f"mode: {config.mode} needs a device that {wanted}, which {device} {verb}; take auto or fused"


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return os.uname().machine


def _die_with(parent_pid: int) -> None:
    """Asks the kernel to end this process when the api process ends, however it ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        raise SystemExit("the api process ended before its core started")
