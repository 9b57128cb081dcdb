"""Qwen3 (dense): RMSNorm over each query and key head, and a head dim that is not hidden size / heads."""

from __future__ import annotations

from drift_engine.models.family import Family, Traits, layered_window_tokens
from drift_engine.models.fields import Fields


def _traits(config: Fields) -> Traits:
    attention_bias = config.flag("attention_bias", default=False)
    return Traits(
        qkv_bias=attention_bias,
        output_bias=attention_bias,
        qk_norm=True,
        sliding_window_tokens=layered_window_tokens(config),
        default_head_dim=128,
    )


FAMILY = Family("Qwen3ForCausalLM", _traits)
