"""Steps `parity` and `speed`: the kernels alone, one row per case."""

from __future__ import annotations

import torch
from benchmarks.gpu import kernels
from benchmarks.gpu.reports import Report

import kernel_parity

NARROW_LANES = (16, 32, 48, 64)
"""SM counts that a decode lane may get beside prefill; the whole device comes last."""


def parity(report: Report, *, dry_run: bool) -> None:
    bench, _ = _setting(dry_run=dry_run)
    for row in kernel_parity.parity(bench.device, bench.lanes[-1]):
        report.add("parity", row)


def speed(report: Report, *, dry_run: bool) -> None:
    torch.manual_seed(0)
    bench, model = _setting(dry_run=dry_run)
    report.set("lanes", list(bench.lanes))
    for measure in (kernels.time_attention, kernels.time_linear, kernels.time_sampling, kernels.time_rows):
        for row in measure(bench, model):
            report.add("timings", row)


def _setting(*, dry_run: bool) -> tuple[kernels.Bench, kernels.Model]:
    if dry_run:
        return kernels.Bench("cpu", torch.float32, (1, 2)), kernels.TINY
    sms = int(torch.cuda.get_device_properties(0).multi_processor_count)
    lanes = (*(lane for lane in NARROW_LANES if lane < sms), sms)
    return kernels.Bench("cuda", torch.bfloat16, lanes), kernels.LLAMA_8B
