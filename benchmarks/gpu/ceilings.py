"""Step `machine`: what the GPU is, and the rates that no kernel can pass: bytes, products, copies, launches."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from benchmarks.gpu.reports import Report

from drift_kernels import norms


def run(report: Report, *, dry_run: bool) -> None:
    device = torch.device("cpu" if dry_run else "cuda")
    report.set("torch", {"version": torch.__version__, "cuda": torch.version.cuda})
    if not dry_run:
        report.set("gpu", _properties())
    report.set("copy", _copy(device, 1 << (20 if dry_run else 32)))
    report.set("product", _product(device, 128 if dry_run else 8192))
    for size in (1 << 10, 1 << 16, 1 << 20) if dry_run else (1 << 10, 1 << 16, 1 << 20, 1 << 28):
        report.add("host_copies", _host_copies(device, size))
    small = torch.ones(1024, device=device)
    rows, weight = small.view(1, -1), small.clone()
    report.set(
        "launch_us",
        {
            "torch": _host_us(lambda: small.add_(1)),
            "launcher": _host_us(lambda: norms.add_rms_norm(rows, rows, weight, 1e-5, lane_sms=1)),
        },
    )
    report.set("sleep_20us_takes_us", _host_us(lambda: time.sleep(20e-6)))


def median_ms(call: Callable[[], object], device: torch.device, repeats: int = 10) -> float:
    """By CUDA events on a GPU, by the wall clock elsewhere."""
    call()
    times_ms = []
    for _ in range(repeats):
        if device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            start.record()
            call()
            end.record()
            torch.cuda.synchronize()
            times_ms.append(float(start.elapsed_time(end)))
        else:
            start_s = time.perf_counter()
            call()
            times_ms.append((time.perf_counter() - start_s) * 1e3)
    return statistics.median(times_ms)


def _copy(device: torch.device, size: int) -> dict[str, Any]:
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    ms = median_ms(lambda: target.copy_(source), device)
    return {"bytes": size, "ms": ms, "tb_per_s": 2 * size / ms / 1e9}  # read and written


def _product(device: torch.device, side: int) -> dict[str, Any]:
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    ms = median_ms(lambda: left @ right, device)
    return {"side": side, "dtype": str(dtype), "ms": ms, "tflop_per_s": 2 * side**3 / ms / 1e9}


def _host_copies(device: torch.device, size: int) -> dict[str, Any]:
    host = torch.empty(size, dtype=torch.uint8, pin_memory=device.type == "cuda")
    there = torch.empty(size, dtype=torch.uint8, device=device)
    return {
        "bytes": size,
        "up_ms": median_ms(lambda: there.copy_(host, non_blocking=True), device),
        "down_ms": median_ms(lambda: host.copy_(there, non_blocking=True), device),
    }


def _host_us(call: Callable[[], object], repeats: int = 500) -> float:
    """What a call keeps the host."""
    call()
    start_s = time.perf_counter()
    for _ in range(repeats):
        call()
    return round((time.perf_counter() - start_s) / repeats * 1e6, 2)


def _properties() -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(0)
    free_bytes, total_bytes = torch.cuda.mem_get_info()
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "sms": properties.multi_processor_count,
        "l2_bytes": properties.L2_cache_size,
        "memory_bytes": total_bytes,
        "free_bytes": free_bytes,
    }
