"""What sets one model family apart from the shared decoder. Each family's own module fills one `Family`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from drift_engine.models.fields import Fields


@dataclass(frozen=True)
class Traits:
    """Which optional parts the decoder of one checkpoint has."""

    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    """RMSNorm over each query and key head before the rotation."""
    sliding_window_tokens: int | None = None
    """The window of the narrowest layer that has one."""
    default_head_dim: int | None = None
    """Head dim where config.json names none; None: hidden size / heads."""


@dataclass(frozen=True)
class Family:
    """An architecture as config.json names it, and how to read its traits from there."""

    architecture: str
    traits: Callable[[Fields], Traits]


def layered_window_tokens(config: Fields) -> int | None:
    """Qwen's window: off unless `use_sliding_window`, and then only on the layers from `max_window_layers`."""
    if not config.flag("use_sliding_window", default=False) or not config.has("sliding_window"):
        return None
    layer_types = config.values.get("layer_types")
    if isinstance(layer_types, list):
        active = "sliding_attention" in layer_types
    else:
        first = config.integer("max_window_layers", 28, minimum=0)
        active = first < config.integer("num_hidden_layers")
    return config.integer("sliding_window") if active else None
