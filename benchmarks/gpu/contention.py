"""Step `contention`: a decode step beside a prefill, for splits, batches and prompts: how much slower both become.

Against the same passes alone on the same lanes; and both one after the other on the whole GPU, which is what a split
has to beat.
"""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.gpu import passes
from benchmarks.gpu.reports import Report
from benchmarks.gpu.setups import Setup

from drift_engine import wire
from drift_engine.devices import sharing
from drift_engine.devices.base import Event, Pass
from drift_engine.devices.cuda import CudaDevice

BATCHES = ((32, 2048), (8, 2048), (64, 1024), (8, 16384))
"""Rows and context of each."""

PROMPTS = ((2048, 0), (512, 8192))
"""New and cached tokens."""

PREFILLS = 3
"""One behind the other, so that there is something to decode beside even where a prefill is short."""

CASE_S = 4.0

WAIT_S = 60.0


def run(report: Report, *, dry_run: bool) -> None:
    setup = Setup(dry_run)
    runner = setup.runner()
    batches, prompts = (((2, 40),), ((16, 0),)) if dry_run else (BATCHES, PROMPTS)
    repeats = 1 if dry_run else 5
    for name, share in (("split", sharing.best), ("overlap", sharing.overlapping)):
        device = setup.open(runner, share, max_running=64)
        report.add("devices", {"device": name, "sharing": device.sharing, "reason": device.sharing_reason})
        for batch, context in batches:
            for new, cached in prompts:
                together = passes.build(runner, [context] * batch, [(new, cached)])
                if together is None:
                    continue
                decode, prefill = Pass(together.decode, ()), Pass((), together.prefill)
                load = {"batch": batch, "context": context, "new": new, "cached": cached}
                whole = {
                    phase: passes.measure(runner, device, work, repeats=repeats)["pass_ms"]
                    for phase, work in (("decode", decode), ("prefill", prefill))
                }
                for split in device.splits:
                    if report.left_s() < CASE_S:
                        report.set("cut_short", True)
                        return
                    row = {"device": name, "decode_sms": split.decode_sms, "prefill_sms": split.prefill_sms}
                    row |= load | {"decode_whole_ms": whole["decode"], "prefill_whole_ms": whole["prefill"]}
                    alone = [
                        passes.measure(runner, device, work, repeats=repeats, lane=lane)["pass_ms"]
                        for work, lane in zip((decode, prefill), device.lanes(split), strict=True)
                    ]
                    report.add("contention", row | _beside(device, split, decode, prefill, *alone))
        device.close()


def _beside(
    device: CudaDevice,
    split: wire.Split,
    decode: Pass,
    prefill: Pass,
    decode_alone_ms: float,
    prefill_alone_ms: float,
) -> dict[str, Any]:
    decode_lane, prefill_lane = device.lanes(split)
    running = [prefill_lane.launch(prefill) for _ in range(PREFILLS)]
    steps_ms: list[float] = []
    while True:
        event = decode_lane.launch(decode)
        step_ms = _pass_ms(device, event)
        if running[-1].done() and steps_ms:
            break  # this step was alone for a part of its time
        steps_ms.append(step_ms)
    # The first prefill may have begun before any decode step.
    prefills_ms = [_pass_ms(device, event) for event in running][1:]
    for request in (*decode.rows, *prefill.rows):
        device.release(request.request_id)
    decode_ms, prefill_ms = statistics.median(steps_ms), statistics.median(prefills_ms)
    return {
        "steps": len(steps_ms),
        "decode_alone_ms": decode_alone_ms,
        "decode_beside_ms": decode_ms,
        "decode_beside_most_ms": max(steps_ms),
        "decode_slowdown": decode_ms / decode_alone_ms,
        "prefill_alone_ms": prefill_alone_ms,
        "prefill_beside_ms": prefill_ms,
        "prefill_slowdown": prefill_ms / prefill_alone_ms,
    }


def _pass_ms(device: CudaDevice, event: Event) -> float:
    if not device.wait([event], WAIT_S):
        raise TimeoutError(f"a pass did not end within {WAIT_S:.0f} s")
    return event.results().pass_s * 1e3
