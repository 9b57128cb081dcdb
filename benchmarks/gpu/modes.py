"""Step `modes`: every mode against the same arrivals of three workloads, at three TBT targets, on the 8B shape.

The rate of each workload is set once, from the calibration: prefill and decode, taking turns at the whole GPU, would
fill `LOAD` of it. `overlap` is on two prioritised streams without partitions, a baseline.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.gpu import open_loop, passes
from benchmarks.gpu.cores import LocalCore
from benchmarks.gpu.open_loop import News
from benchmarks.gpu.reports import Report
from benchmarks.gpu.setups import Setup
from benchmarks.gpu.workloads import TINY_WORKLOADS, WORKLOADS, Workload

from drift_engine import wire
from drift_engine.core import calibrating
from drift_engine.devices import sharing
from drift_engine.devices.base import Device, Lane
from drift_engine.devices.cuda import CudaDevice
from drift_engine.devices.graphs import buckets
from drift_engine.devices.runner import Runner
from drift_engine.latency import LatencyModel, Load, fitting

LOAD = 0.7
"""High enough that prefill and decode always meet, low enough that a queue does not grow for ever. Estimate."""

TBT_MS = (25.0, 15.0, 50.0)
"""In order of worth: an 8B model's decode step takes some 8 ms, so that 25 leaves room for either way."""

PLAYED_S, DRAIN_S = 6.0, 4.0
"""Of one cell. 36 cells of at most 10 s are more than the step's time: it stops where that is up."""

MAX_RUNNING = 64

CAPTURE_S = 45.0
"""For the graphs of a device, 99 where it has eight splits. One of an 8B model may take half a second. Estimate."""

GREEDY: dict[str, Any] = {"temperature": 0.0, "ignore_eos": True}


@dataclass
class DriftServer:
    """A core in this process."""

    core: LocalCore

    def submit(self, name: str, prompt: list[int], answer_tokens: int) -> None:
        self.core.submit(name, prompt, wire.Sampling(max_tokens=answer_tokens, **GREEDY))

    def poll(self) -> list[News]:
        found, now_s = self.core.step(), time.perf_counter()
        for output in found:
            assert output.error is None, output.error
        return [
            News(
                output.request_id,
                output.token_ids,
                [now_s] * len(output.token_ids),
                output.finish is not None,
            )
            for output in found
        ]


@dataclass(frozen=True)
class Contestant:
    """A way to serve: `measured` is what its device's calibration found."""

    name: str
    mode: wire.Mode
    device: CudaDevice
    measured: calibrating.Measured

    def latency(self) -> LatencyModel:
        """Fresh, so that no cell learns from another."""
        latency = LatencyModel()
        if self.measured.alone:
            latency.calibrate(fitting.fit(self.measured.alone))
            latency.calibrate_contention(self.measured.beside)
        return latency


def run(report: Report, *, dry_run: bool) -> None:
    setup = Setup(dry_run)
    runner = setup.runner()
    split = setup.open(runner, sharing.best, max_running=MAX_RUNNING)
    overlap = setup.open(runner, sharing.overlapping, max_running=MAX_RUNNING)
    budget_s = 1.0 if dry_run else 25.0
    contestants = []
    sharing_modes = ("fused", "mux", "auto", "muxwise", "batch-table")
    for device, modes in ((split, sharing_modes), (overlap, ("overlap",))):
        measured = _calibrated(runner, device, budget_s)
        contestants += [Contestant(name, wire.Mode(name), device, measured) for name in modes]
        row: dict[str, Any] = {"sharing": device.sharing, "reason": device.sharing_reason}
        row |= {
            "decode_sms": [split.decode_sms for split in device.splits],
            "calibrated": len(measured.alone),
        }
        report.add("devices", row | _capture(runner, device, 1.0 if dry_run else CAPTURE_S))
    rates = {w.name: 30.0 if dry_run else _rate_per_s(w, contestants[0]) for w in WORKLOADS + TINY_WORKLOADS}
    report.set("sessions_per_s", rates)
    played_s, drain_s = (0.2, 2.0) if dry_run else (PLAYED_S, DRAIN_S)
    for tbt_ms in TBT_MS[:1] if dry_run else TBT_MS:
        for workload in TINY_WORKLOADS if dry_run else WORKLOADS:
            for contestant in contestants:
                if report.left_s() < played_s + drain_s + 1:
                    report.set("cut_short", True)
                    return
                cell = {"workload": workload.name, "tbt_ms": tbt_ms, "mode": contestant.name}
                rate_per_s = rates[workload.name]
                found = _cell(runner, contestant, workload, tbt_ms, rate_per_s, played_s, drain_s)
                report.add("modes", cell | found)
    for device in (split, overlap):
        device.close()


def _cell(
    runner: Runner,
    contestant: Contestant,
    workload: Workload,
    tbt_ms: float,
    rate_per_s: float,
    played_s: float,
    drain_s: float,
) -> dict[str, Any]:
    core = LocalCore(
        runner,
        contestant.device,
        max_running=MAX_RUNNING,
        mode=contestant.mode,
        latency=contestant.latency(),
        targets=wire.Targets(workload.ttft_ms, 0.0, tbt_ms),
    )
    found = open_loop.play(
        DriftServer(core),
        workload.sessions(rate_per_s, played_s, seed=1),
        vocab=runner.model.config.vocab_size,
        stem_tokens=workload.stem_tokens,
        context_tokens=min(runner.model.max_context_tokens, runner.kv.pages * runner.kv.page_tokens),
        limit_s=played_s + drain_s,
        ttft_ms=workload.ttft_ms,
        tbt_ms=tbt_ms,
    )
    core.give_up()
    stats = core.mailbox.stats
    if stats is not None:
        total_s = sum(stats.activity_s_total.values()) or 1.0
        found["activity"] = {str(what): s / total_s for what, s in stats.activity_s_total.items()}
        found["cached_share"] = stats.cached_tokens_total / max(1, stats.prompt_tokens_total)
        found["prediction_errors"] = stats.prediction_errors
    return found


def _calibrated(runner: Runner, device: Device, budget_s: float) -> calibrating.Measured:
    tokens = runner.kv.pages * runner.kv.page_tokens
    return calibrating.measure(
        device,
        calibrating.Bounds(
            kv_tokens=tokens,
            page_tokens=runner.kv.page_tokens,
            max_context_tokens=min(tokens, runner.model.max_context_tokens),
            max_rows=MAX_RUNNING,
            max_step_tokens=2048,
            budget_s=budget_s,
        ),
    )


def _capture(runner: Runner, device: CudaDevice, limit_s: float) -> dict[str, float]:
    """Every decode lane's graphs, so that no cell pays for them; how many there was time for."""
    start_s, graphs = time.perf_counter(), 0
    for batch in buckets(MAX_RUNNING):
        for lane in _decode_lanes(device):
            if time.perf_counter() - start_s > limit_s:
                break
            work = passes.build(runner, [64] * batch, [])
            assert work is not None
            passes.measure(runner, device, work, lane=lane, repeats=1)
            graphs += 1
    return {"graphs": graphs, "capture_s": time.perf_counter() - start_s}


def _decode_lanes(device: CudaDevice) -> Iterator[Lane]:
    yield device.whole
    for split in device.splits:
        yield device.lanes(split)[0]


def _rate_per_s(workload: Workload, contestant: Contestant) -> float:
    latency, sms = contestant.latency(), contestant.device.whole.sms
    new_tokens, answer_tokens = workload.means()
    step_s = latency.pass_s(Load.decode(32, 32 * 2048), sms)
    prefill_tokens_per_s = latency.prefill_tokens_per_s(sms, 2048)
    assert step_s, "the calibration found no decode step"
    return LOAD / (new_tokens / prefill_tokens_per_s + answer_tokens * step_s / 32)
