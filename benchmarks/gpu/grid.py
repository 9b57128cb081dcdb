"""Step `grid`: passes alone on every lane size, as the latency model's fit and the simulator need them.

A row is what `latency.fitting.Measurement` holds: the load's sums, the SM count, the seconds.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.gpu import passes
from benchmarks.gpu.reports import Report
from benchmarks.gpu.setups import Setup

from drift_engine.devices import sharing
from drift_engine.devices.base import Lane, load_of
from drift_engine.devices.cuda import CudaDevice
from drift_engine.wire import to_builtins

DECODES = ((32, 2048), (1, 512), (64, 512), (8, 8192), (8, 512), (64, 4096), (1, 16384))
PREFILLS = ((2048, 0), (512, 0), (512, 8192), (128, 0), (4096, 0), (2048, 16384))
"""In order of worth: every size of lane takes one shape before any takes the next."""

CASE_S = 4.0


def run(report: Report, *, dry_run: bool) -> None:
    setup = Setup(dry_run)
    runner = setup.runner()
    device = setup.open(runner, sharing.best, max_running=64)
    report.set("sharing", {"got": device.sharing, "reason": device.sharing_reason})
    decodes, prefills = (((2, 40),), ((16, 0),)) if dry_run else (DECODES, PREFILLS)
    for index in range(max(len(decodes), len(prefills))):
        shapes: list[passes.Filling] = [
            ([context] * batch, []) for batch, context in decodes[index : index + 1]
        ]
        shapes += [([], [prompt]) for prompt in prefills[index : index + 1]]
        for decode, prefill in shapes:
            work = passes.build(runner, decode, prefill)
            if work is None:
                continue
            load = load_of(work.rows)
            for lane in _lanes(device, 0 if decode else 1):
                if report.left_s() < CASE_S:
                    report.set("cut_short", True)
                    return
                found = passes.measure(runner, device, work, repeats=2 if dry_run else 6, lane=lane)
                report.add("grid", {"lane": lane.name, "sms": lane.sms, "load": to_builtins(load)} | found)
    device.close()


def _lanes(device: CudaDevice, phase: int) -> Iterator[Lane]:
    yield device.whole
    for split in device.splits:
        yield device.lanes(split)[phase]
