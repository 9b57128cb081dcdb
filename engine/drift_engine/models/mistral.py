"""Mistral 7B and its kin: Llama without biases, in early versions with a sliding window on every layer."""

from __future__ import annotations

from drift_engine.models.family import Family, Traits
from drift_engine.models.fields import Fields

_DEFAULT_WINDOW_TOKENS = 4096  # transformers' default where the key is absent; null switches the window off


def _traits(config: Fields) -> Traits:
    window_tokens = None
    if config.has("sliding_window") or "sliding_window" not in config.values:
        window_tokens = config.integer("sliding_window", _DEFAULT_WINDOW_TOKENS)
    return Traits(sliding_window_tokens=window_tokens)


FAMILY = Family("MistralForCausalLM", _traits)
