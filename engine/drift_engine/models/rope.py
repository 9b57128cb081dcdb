"""The rotary embedding's table of cosines and sines, made once when a model is loaded.

Computed in float32 with the operations of transformers, in their order, so that both engines rotate alike.
"""

from __future__ import annotations

import math

import torch

from drift_engine.models.scalings import Linear, Llama3, Rope, Yarn


def cos_sin_table(rope: Rope, head_dim: int, positions: int, device: torch.device) -> torch.Tensor:
    """[positions, head_dim] float32: each row holds head_dim/2 cosines, then as many sines."""
    frequencies_h = inverse_frequencies(rope, head_dim)
    angles_Lh = torch.arange(positions, dtype=torch.float32)[:, None] * frequencies_h
    factor = rope.scaling.attention_factor if isinstance(rope.scaling, Yarn) else 1.0
    return torch.cat([angles_Lh.cos() * factor, angles_Lh.sin() * factor], dim=1).to(device)


def inverse_frequencies(rope: Rope, head_dim: int) -> torch.Tensor:
    """[head_dim / 2] float32, radians per position."""
    exponents_h = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    wavelengths_h = torch.pow(rope.theta, exponents_h)
    scaling = rope.scaling
    if scaling is None:
        return 1.0 / wavelengths_h
    if isinstance(scaling, Linear):
        return (1.0 / wavelengths_h) / scaling.factor
    if isinstance(scaling, Llama3):
        return _llama3(1.0 / wavelengths_h, scaling)
    return _yarn(wavelengths_h, scaling, rope.theta, head_dim)


def _llama3(frequencies_h: torch.Tensor, scaling: Llama3) -> torch.Tensor:
    """Llama 3.1: long wavelengths are stretched by the factor, short ones kept, those between are blended."""
    original = scaling.original_max_positions
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    wavelengths_h = 2 * math.pi / frequencies_h
    long_h = wavelengths_h > original / low
    scaled_h = torch.where(long_h, frequencies_h / scaling.factor, frequencies_h)
    smooth_h = (original / wavelengths_h - low) / (high - low)
    blended_h = (1 - smooth_h) * scaled_h / scaling.factor + smooth_h * scaled_h
    between_h = ~(wavelengths_h < original / high) & ~long_h
    return torch.where(between_h, blended_h, scaled_h)


def _yarn(wavelengths_h: torch.Tensor, scaling: Yarn, theta: float, head_dim: int) -> torch.Tensor:
    """YaRN (Peng et al. 2023): a ramp over the dimensions from extrapolation to interpolation."""

    def dimension(rotations: float) -> float:
        ratio = scaling.original_max_positions / (rotations * 2 * math.pi)
        return head_dim * math.log(ratio) / (2 * math.log(theta))

    low, high = dimension(scaling.beta_fast), dimension(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    if low == high:
        high += 0.001  # as in transformers: the ramp becomes a step instead of dividing by zero
    ramp_h = ((torch.arange(head_dim // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
    extrapolation_h = 1 - ramp_h
    interpolated_h = 1.0 / (scaling.factor * wavelengths_h)
    return interpolated_h * (1 - extrapolation_h) + (1.0 / wavelengths_h) * extrapolation_h
