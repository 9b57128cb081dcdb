"""Qwen2 and Qwen2.5: biases on query, key and value, always."""

from __future__ import annotations

from drift_engine.models.family import Family, Traits, layered_window_tokens
from drift_engine.models.fields import Fields


def _traits(config: Fields) -> Traits:
    return Traits(qkv_bias=True, sliding_window_tokens=layered_window_tokens(config))


FAMILY = Family("Qwen2ForCausalLM", _traits)
