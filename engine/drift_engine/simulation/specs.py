"""What simulated nodes are, from the names of hardware and model."""

from __future__ import annotations

from drift_engine import wire
from drift_engine.errors import OptionsError
from drift_engine.hardware import profiles, shapes
from drift_engine.hardware.roofline import Roofline
from drift_engine.simulation.nodes import PAGE_TOKENS, NodeSpec

LONGEST_CONTEXT_TOKENS = 131_072
"""Of the shipped shapes' models, and of most others today."""

MIN_KV_TOKENS = 2048
"""Fewer hold no conversation: what is wanted is another GPU or one more."""

OVERHEAD_S = 0.5e-3
"""What the loop adds to a pass on a GPU machine. Estimate: 0.83 ms for 32 rows were measured on two cores at 2.5 GHz,
and part of it runs while the GPU computes."""


def spec(
    *,
    hardware: str,
    model: str,
    gpus: int,
    mode: wire.Mode,
    targets: wire.Targets,
    max_running: int = 256,
    chunk_tokens: int | None = None,
    kept_spans: int = 0,
) -> NodeSpec:
    """A node of `gpus` GPUs. Raises OptionsError, ModelError or CapacityError."""
    if mode is wire.Mode.OVERLAP:
        raise OptionsError(
            "mode: overlap is not simulated: what lanes on the same SMs cost each other is not known"
        )
    profile, shape = profiles.named(hardware), shapes.read(model, gpus)
    kv_tokens = shape.kv_tokens(profile)
    kv_tokens -= kv_tokens % PAGE_TOKENS
    if kv_tokens < MIN_KV_TOKENS:
        raise OptionsError(
            f"gpus: {gpus} x {hardware} have room for {kv_tokens} tokens of KV beside {model}; "
            f"at least {MIN_KV_TOKENS} are needed"
        )
    return NodeSpec(
        timing=Roofline(profile, shape),
        sms=profile.sms,
        splits=profiles.splits(profile),
        layers=shape.num_layers,
        pairs_share=shape.pairs_share,
        kv_tokens=kv_tokens,
        max_model_len_tokens=min(LONGEST_CONTEXT_TOKENS, kv_tokens),
        mode=mode,
        targets=targets,
        max_running=max_running,
        chunk_tokens=chunk_tokens,
        overhead_s=OVERHEAD_S,
        kept_spans=kept_spans,
    )
