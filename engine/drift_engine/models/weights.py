"""The decoder's weights as the forward uses them, and where each tensor of a checkpoint goes in them.

`allocate` makes the packed tensors (query, key and value in one; gate and up in one). `views` names the part of
them that each checkpoint tensor fills, so loading is one copy per tensor and the expected shape is the view's.
`prepare` then brings the matrices into the form that the device's products read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from drift_engine.models.config import ModelConfig
from drift_kernels import linear

# E hidden, X query + key + value width, Y query width, F intermediate, H head dim, V vocabulary


@dataclass(frozen=True)
class LayerWeights:
    input_norm_E: torch.Tensor
    qkv_XE: torch.Tensor
    qkv_bias_X: torch.Tensor | None
    q_norm_H: torch.Tensor | None
    k_norm_H: torch.Tensor | None
    output_EY: torch.Tensor
    output_bias_E: torch.Tensor | None
    mlp_norm_E: torch.Tensor
    gate_up_2FE: torch.Tensor
    gate_up_bias_2F: torch.Tensor | None
    down_EF: torch.Tensor
    down_bias_E: torch.Tensor | None


@dataclass(frozen=True)
class Weights:
    embedding_VE: torch.Tensor
    layers: list[LayerWeights]
    final_norm_E: torch.Tensor
    head_VE: torch.Tensor
    """The embedding itself where the checkpoint ties the two, unless it was prepared."""


def allocate(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> Weights:
    """Uninitialised tensors of the right shapes."""
    hidden, double = config.hidden_size, 2 * config.intermediate_size

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(shape, device=device, dtype=dtype)

    def layer() -> LayerWeights:
        return LayerWeights(
            input_norm_E=empty(hidden),
            qkv_XE=empty(config.qkv_size, hidden),
            qkv_bias_X=empty(config.qkv_size) if config.qkv_bias else None,
            q_norm_H=empty(config.head_dim) if config.qk_norm else None,
            k_norm_H=empty(config.head_dim) if config.qk_norm else None,
            output_EY=empty(hidden, config.q_size),
            output_bias_E=empty(hidden) if config.output_bias else None,
            mlp_norm_E=empty(hidden),
            gate_up_2FE=empty(double, hidden),
            gate_up_bias_2F=empty(double) if config.mlp_bias else None,
            down_EF=empty(hidden, config.intermediate_size),
            down_bias_E=empty(hidden) if config.mlp_bias else None,
        )

    embedding_VE = empty(config.vocab_size, hidden)
    return Weights(
        embedding_VE=embedding_VE,
        layers=[layer() for _ in range(config.num_layers)],
        final_norm_E=empty(hidden),
        head_VE=embedding_VE if config.tie_word_embeddings else empty(config.vocab_size, hidden),
    )


def prepare(weights: Weights) -> Weights:
    """Takes the matrices out of `weights` layer by layer, so that two copies of the model never exist."""
    for index, layer in enumerate(weights.layers):
        weights.layers[index] = replace(
            layer,
            qkv_XE=linear.prepare(layer.qkv_XE),
            output_EY=linear.prepare(layer.output_EY),
            gate_up_2FE=linear.prepare(layer.gate_up_2FE),
            down_EF=linear.prepare(layer.down_EF),
        )
    return replace(weights, head_VE=linear.prepare(weights.head_VE))


def views(config: ModelConfig, weights: Weights) -> Iterator[tuple[str, torch.Tensor]]:
    """(name in the checkpoint, the part of `weights` that it fills), in the order of the layers.

    The four families share these names; what differs between them is which optional tensors exist.
    """
    yield "model.embed_tokens.weight", weights.embedding_VE
    for index, layer in enumerate(weights.layers):
        for name, view in _layer_views(config, layer):
            if view is not None:
                yield f"model.layers.{index}.{name}", view
    yield "model.norm.weight", weights.final_norm_E
    if not config.tie_word_embeddings:
        yield "lm_head.weight", weights.head_VE


def _layer_views(config: ModelConfig, layer: LayerWeights) -> Iterator[tuple[str, torch.Tensor | None]]:
    yield "input_layernorm.weight", layer.input_norm_E
    heads = (config.q_size, config.kv_size, config.kv_size)
    yield from _parts("self_attn", ("q", "k", "v"), heads, layer.qkv_XE, "weight")
    yield from _parts("self_attn", ("q", "k", "v"), heads, layer.qkv_bias_X, "bias")
    yield "self_attn.q_norm.weight", layer.q_norm_H
    yield "self_attn.k_norm.weight", layer.k_norm_H
    yield "self_attn.o_proj.weight", layer.output_EY
    yield "self_attn.o_proj.bias", layer.output_bias_E
    yield "post_attention_layernorm.weight", layer.mlp_norm_E
    halves = (config.intermediate_size, config.intermediate_size)
    yield from _parts("mlp", ("gate", "up"), halves, layer.gate_up_2FE, "weight")
    yield from _parts("mlp", ("gate", "up"), halves, layer.gate_up_bias_2F, "bias")
    yield "mlp.down_proj.weight", layer.down_EF
    yield "mlp.down_proj.bias", layer.down_bias_E


def _parts(
    block: str, projections: tuple[str, ...], sizes: tuple[int, ...], packed: torch.Tensor | None, kind: str
) -> Iterator[tuple[str, torch.Tensor]]:
    if packed is None:
        return
    start = 0
    for projection, size in zip(projections, sizes, strict=True):
        yield f"{block}.{projection}_proj.{kind}", packed[start : start + size]
        start += size
