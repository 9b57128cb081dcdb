"""Llama 1 to 3.x: the plain decoder; biases only where config.json asks for them."""

from __future__ import annotations

from drift_engine.models.family import Family, Traits
from drift_engine.models.fields import Fields


def _traits(config: Fields) -> Traits:
    attention_bias = config.flag("attention_bias", default=False)
    return Traits(
        qkv_bias=attention_bias,
        output_bias=attention_bias,
        mlp_bias=config.flag("mlp_bias", default=False),
    )


FAMILY = Family("LlamaForCausalLM", _traits)
