"""A prior: what a model's arithmetic and memory traffic take at the speed that a device can reach.

Prefill is bound by arithmetic, which grows with the SMs. Decode is bound by reading weights and KV cache, and a part
of the SMs saturates the memory. The formulas are sums where the hardware takes a maximum, so the prior is rather slow
than fast; its proportions, between coefficients and over SM counts, are what the model builds on.
"""

from __future__ import annotations

from dataclasses import dataclass

from drift_engine.latency.costs import Costs, DecodeCost, PrefillCost

COMPUTE_EFFICIENCY = 0.6
"""Of the peak. Estimate: large matrix products reach 0.8 (790 of 989 TFLOP/s on an H200), all else in a pass less."""

BANDWIDTH_EFFICIENCY = 0.8
"""Of the peak: decode attention reaches 3.9 and copies 4.3 of 4.8 TB/s on an H200."""

SATURATING_SHARE = 0.3
"""Of the SMs, from which on the memory is saturated: about 30 of an A100's 108 in the memcpy test of Bullet, arXiv
2504.19516. Decode attention kernels may need more."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A dense decoder with gated feed-forward layers."""

    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    bytes_per_parameter: float
    bytes_per_kv_value: float = 2.0

    @property
    def layer_parameters(self) -> int:
        """Of all layers, which every token multiplies with."""
        attention = self.hidden_size * self.head_dim * 2 * (self.num_heads + self.num_kv_heads)
        return self.num_layers * (attention + 3 * self.hidden_size * self.intermediate_size)

    @property
    def head_parameters(self) -> int:
        """Of the projection to the vocabulary, with which only a row's last token multiplies."""
        return self.hidden_size * self.vocab_size


@dataclass(frozen=True, slots=True)
class Hardware:
    """Peaks of a whole device in the model's number format."""

    flops_per_s: float
    bytes_per_s: float
    sms: int  # SMs of a GPU, cores of a CPU
    saturating_share: float = SATURATING_SHARE
    pass_overhead_s: float = 0.0  # launching and what else no SM shortens

    def compute_flops_per_s(self, sms: int) -> float:
        """Which a lane of `sms` SMs can reach."""
        return COMPUTE_EFFICIENCY * self.flops_per_s * min(1.0, sms / self.sms)

    def memory_bytes_per_s(self, sms: int) -> float:
        return BANDWIDTH_EFFICIENCY * self.bytes_per_s * min(1.0, sms / (self.saturating_share * self.sms))


def costs(shape: ModelShape, hardware: Hardware, sms: int) -> Costs:
    """Of passes on a lane of `sms` SMs. `functools.partial(costs, shape, hardware)` is a `costs.Prior`."""
    flops_per_s = hardware.compute_flops_per_s(sms)
    bytes_per_s = hardware.memory_bytes_per_s(sms)
    # A query and a key: one product for the score and one for the value, two operations per element each.
    per_pair_s = 4 * shape.num_layers * shape.num_heads * shape.head_dim / flops_per_s
    per_token_s = 2 * shape.layer_parameters / flops_per_s
    weight_bytes = (shape.layer_parameters + shape.head_parameters) * shape.bytes_per_parameter
    kv_bytes = 2 * shape.num_layers * shape.num_kv_heads * shape.head_dim * shape.bytes_per_kv_value
    per_pass_s = weight_bytes / bytes_per_s + hardware.pass_overhead_s
    return Costs(
        # A causal chunk sees half of itself on average, and all of what it reuses.
        PrefillCost(0.5 * per_pair_s, per_pair_s, per_token_s, per_pass_s),
        DecodeCost(
            per_context_token_s=kv_bytes / bytes_per_s,
            per_row_s=per_token_s + 2 * shape.head_parameters / flops_per_s,
            per_pass_s=per_pass_s,
        ),
    )
