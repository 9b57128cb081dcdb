"""A core of this process as a simulated node, by what it has learned."""

from __future__ import annotations

from pathlib import Path

from benchmarks.engine.local_core import LocalCore

from drift_engine import models, wire
from drift_engine.simulation.nodes import NodeSpec
from drift_engine.simulation.timings import LearnedTiming


def spec(core: LocalCore, model: Path, mode: wire.Mode, targets: wire.Targets, overhead_s: float) -> NodeSpec:
    """`overhead_s` is what the core's loop adds to a pass."""
    config, ready = models.read_config(model), core.ready
    return NodeSpec(
        timing=LearnedTiming(core.latency),
        sms=core.device.whole.sms,
        splits=tuple(core.device.splits),
        layers=config.num_layers,
        pairs_share=2 * config.num_layers * config.q_size / config.num_parameters,
        kv_tokens=ready.kv_pages * ready.page_tokens,
        max_model_len_tokens=ready.max_model_len_tokens,
        mode=mode,
        targets=targets,
        max_running=64,
        max_step_tokens=2048,
        overhead_s=overhead_s,
    )


def overhead_s(core: LocalCore) -> float:
    """Of a pass, on average over all so far."""
    stats = core.mailbox.stats
    return stats.overhead_s_total / stats.steps_total if stats is not None and stats.steps_total else 1e-3
