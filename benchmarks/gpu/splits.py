"""Step `splits`: what partitions this GPU gives, what they cost, and what their SMs can do.

Rates are of the kernels that lanes run: an element-wise one for memory, products of a decode step and of a prefill
by our kernel and by the library, and decode attention; each alone on its part. Then graphs: captured on a small part
and replayed from a stream of the whole GPU, does the work stay on the part's SMs?
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from benchmarks.gpu.reports import Report
from benchmarks.gpu.setups import Setup

from drift_engine.devices import sharing
from drift_engine.devices.sharing import Shared
from drift_engine.devices.streams import Stream
from drift_engine.errors import DeviceError
from drift_kernels import linear
from drift_kernels.driver_errors import DriverError
from kernel_cases import paged_case

CASE_S = 2.0

HONOURED = 1.3
"""A replay that is so much quicker than the part's own run left the part: the smallest, some 6 % of the SMs."""


@dataclass(frozen=True)
class Probe:
    """`work(sms)` moves `gigabytes` and computes `teraflop`."""

    name: str
    work: Callable[[int], object]
    gigabytes: float = 0.0
    teraflop: float = 0.0

    def rates(self, ms: float) -> dict[str, float]:
        found = {"ms": ms, "gb_per_s": self.gigabytes / ms * 1e3, "tflop_per_s": self.teraflop / ms * 1e3}
        return {key: value for key, value in found.items() if value}


def run(report: Report, *, dry_run: bool) -> None:
    setup = Setup(dry_run)
    torch.zeros(1, device=setup.device)  # CUDA starts here, not in what is timed
    for balanced in (False, True):
        report.add("creation", _creation(setup, balanced=balanced))
    streams = setup.streams()
    shared = sharing.best(streams)
    report.set("sharing", {"got": shared.sharing, "reason": shared.reason})
    probes = _probes(setup)
    whole = streams.plain()
    if shared.parts:
        smallest = shared.parts[0]
        for probe in probes:
            row = _graph(probe, smallest.decode, smallest.split.decode_sms, whole)
            if not dry_run and row["part_ms"] > HONOURED * row["whole_ms"]:  # otherwise it can't be told
                row["ok"] = row["replayed_from_whole_ms"] * HONOURED > row["part_ms"]
            report.add("graphs", row)
    lanes = [(streams.sms, "whole", whole)]
    for part in shared.parts:
        lanes.append((part.split.decode_sms, "decode", part.decode))
        lanes.append((part.split.prefill_sms, "prefill", part.prefill))
    for sms, phase, stream in lanes:
        for probe in probes:
            if report.left_s() < CASE_S:
                report.set("cut_short", True)
                return
            row = {"probe": probe.name, "sms": sms, "part": phase}
            report.add("rates", row | probe.rates(_ms(stream, partial(probe.work, sms))))
    shared.close()


def _creation(setup: Setup, *, balanced: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"balanced_workqueues": balanced}
    before = _free_bytes(setup)
    start_s = time.perf_counter()
    try:
        shared: Shared = sharing.partitioned(setup.streams(), balanced=balanced)
    except (DriverError, DeviceError) as error:
        return row | {"refused": str(error)}
    row |= {
        "create_ms": (time.perf_counter() - start_s) * 1e3,
        "bytes": before - _free_bytes(setup),
        "splits": [[part.split.decode_sms, part.split.prefill_sms] for part in shared.parts],
        "found": shared.reason,
    }
    start_s = time.perf_counter()
    shared.close()
    return row | {
        "close_ms": (time.perf_counter() - start_s) * 1e3,
        "bytes_kept": before - _free_bytes(setup),
    }


def _free_bytes(setup: Setup) -> int:
    return 0 if setup.dry_run else int(torch.cuda.mem_get_info()[0])


def _probes(setup: Setup) -> list[Probe]:
    config, device = setup.config, setup.device
    dtype = torch.float32 if setup.dry_run else torch.bfloat16
    size = 1 << (12 if setup.dry_run else 29)  # elements: many times the L2 cache
    source = torch.ones(size, dtype=dtype, device=device)
    target = torch.empty_like(source)
    own = "cpu" if setup.dry_run else "triton"
    probes = [
        Probe("add", lambda sms: torch.add(source, 1.0, out=target), 2 * size * dtype.itemsize / 1e9),
        Probe("copy engine", lambda sms: target.copy_(source), 2 * size * dtype.itemsize / 1e9),
    ]
    weight = torch.randn(2 * config.intermediate_size, config.hidden_size, device=device, dtype=dtype)
    for tokens in (4, 8) if setup.dry_run else (32, 2048):
        x = torch.randn(tokens, config.hidden_size, device=device, dtype=dtype)
        gigabytes = (weight.numel() + x.numel() + tokens * weight.shape[0]) * dtype.itemsize / 1e9
        teraflop = 2 * tokens * weight.numel() / 1e12
        for name, impl in (("own", own), ("library", own if setup.dry_run else "library")):
            work = partial(_product, x, weight, impl)
            probes.append(Probe(f"{name} product of {tokens}", work, gigabytes, teraflop))
    sequences, context = (2, 40) if setup.dry_run else (32, 4096)
    case = paged_case(
        [1] * sequences,
        [context - 1] * sequences,
        heads=config.num_heads,
        kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        slots=16,
        dtype=dtype,
        device=device.type,
    )
    kv_bytes = 2 * sequences * context * config.kv_size * dtype.itemsize
    probes.append(Probe("decode attention", lambda sms: case.decode(impl=own, lane_sms=sms), kv_bytes / 1e9))
    return probes


def _product(x_TI: torch.Tensor, weight_OI: torch.Tensor, impl: str, sms: int) -> torch.Tensor:
    return linear.linear(x_TI, weight_OI, None, lane_sms=sms, impl=impl)


def _ms(stream: Stream, work: Callable[[], object], repeats: int = 5) -> float:
    """The shortest of some runs one after the other on the stream, behind one that warms up."""
    marks = []
    with stream.scope():
        for _ in range(repeats + 1):
            start = stream.mark()
            stream.run(work)
            marks.append((start, stream.mark()))
    while not marks[-1][1].done():
        time.sleep(1e-4)
    return min(end.since_s(start) for start, end in marks[1:]) * 1e3


def _graph(probe: Probe, small: Stream, sms: int, whole: Stream) -> dict[str, Any]:
    own_ms = _ms(small, partial(probe.work, sms))
    whole_ms = _ms(whole, partial(probe.work, sms))
    with small.scope():
        graph = small.capture(partial(probe.work, sms))
    return {
        "probe": probe.name,
        "captured_on_sms": sms,
        "part_ms": own_ms,
        "whole_ms": whole_ms,
        "replayed_from_part_ms": _ms(small, graph.replay),
        "replayed_from_whole_ms": _ms(whole, graph.replay),
    }
