"""How a checkpoint stretches its rotary embedding, read from config.json. Free of torch; `rope` computes the table.

Supported are the scalings whose rotation depends on the position alone, because a cached key is rotated once and
read at every later length: none, linear, llama3 and yarn. `dynamic` and `longrope` rotate a key differently once
the sequence has grown, so a cached key would be wrong; they are refused by name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from drift_engine.models.fields import Fields

SUPPORTED = ("default", "linear", "llama3", "yarn")

DEFAULT_THETA = 10_000.0  # what transformers assumes where a config names none


@dataclass(frozen=True)
class Linear:
    factor: float


@dataclass(frozen=True)
class Llama3:
    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_positions: int


@dataclass(frozen=True)
class Yarn:
    """`attention_factor` multiplies cosines and sines."""

    factor: float
    original_max_positions: int
    attention_factor: float
    beta_fast: float
    beta_slow: float
    truncate: bool


@dataclass(frozen=True)
class Rope:
    theta: float
    scaling: Linear | Llama3 | Yarn | None = None


def read(config: Fields, max_positions: int) -> Rope:
    """Reads `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (earlier).

    Raises ModelError for an unsupported kind, naming it and the supported ones.
    """
    section = config.section("rope_parameters")
    if section is None or not section.values:
        section = config.section("rope_scaling")
    outer_theta = config.number("rope_theta", DEFAULT_THETA)
    for holder in (config, section):
        if holder is not None and holder.number("partial_rotary_factor", 1.0) != 1.0:
            raise holder.error("partial_rotary_factor", "only 1.0 is supported")
    if section is None or not section.values:
        return Rope(outer_theta)
    if any(isinstance(value, dict) for value in section.values.values()):
        raise config.error("rope_parameters", "parameters per layer type are not supported")
    kind = section.text("rope_type", section.text("type", "default"))
    theta = section.number("rope_theta", outer_theta)
    original = config.integer(
        "original_max_position_embeddings",
        section.integer("original_max_position_embeddings", max_positions),
    )
    if kind == "default" and not section.has("mrope_section"):
        return Rope(theta)
    if kind == "linear":
        return Rope(theta, Linear(section.number("factor")))
    if kind == "llama3":
        return Rope(theta, _llama3(section, original))
    if kind == "yarn":
        return Rope(theta, _yarn(section, original, max_positions))
    kind = "mrope" if kind == "default" else kind
    raise section.error(
        "rope_type", f"the RoPE scaling {kind!r} is not supported; supported: {', '.join(SUPPORTED)}"
    )


def _llama3(section: Fields, original_max_positions: int) -> Llama3:
    low, high = section.number("low_freq_factor"), section.number("high_freq_factor")
    if low >= high:
        raise section.error("high_freq_factor", f"{high} is not above low_freq_factor {low}")
    return Llama3(section.number("factor"), low, high, original_max_positions)


def _yarn(section: Fields, original_max_positions: int, max_positions: int) -> Yarn:
    """The attention factor's default is that of Peng et al., YaRN (2023), 0.1 ln(factor) + 1."""
    factor = section.number("factor", max_positions / original_max_positions)
    if section.has("mscale") and section.has("mscale_all_dim"):
        attention_factor = _magnitude(factor, section.number("mscale")) / _magnitude(
            factor, section.number("mscale_all_dim")
        )
    else:
        attention_factor = _magnitude(factor, 1.0)
    return Yarn(
        factor=factor,
        original_max_positions=original_max_positions,
        attention_factor=section.number("attention_factor", attention_factor),
        beta_fast=section.number("beta_fast", 32.0),
        beta_slow=section.number("beta_slow", 1.0),
        truncate=section.flag("truncate", default=True),
    )


def _magnitude(factor: float, scale: float) -> float:
    return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0
