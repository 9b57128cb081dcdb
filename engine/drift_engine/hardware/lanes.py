"""What a model's operations take on a lane of so many SMs, as far as it does not depend on the load.

From a profile and a shape to a dozen numbers; `roofline` multiplies them with a pass's counts.
"""

from __future__ import annotations

from typing import NamedTuple

from drift_engine.hardware.profiles import Hardware
from drift_engine.hardware.shapes import ModelShape

ACTIVATION_BYTES = 2
"""Of one value between operations: bfloat16, also where weights are in eight bits."""

DTYPES = {2: "bfloat16", 1: "fp8"}
"""In which GEMMs compute, by the bytes of a parameter."""

LAYER_KERNELS = 4
"""Element-wise: two norms with their residual additions, rotation with cache write, activation."""

PASS_KERNELS = 8
"""Element-wise, outside of the layers: embedding, final norm, and what gathers rows and draws tokens. Estimate."""


class Gemm(NamedTuple):
    """One GEMM of every layer, or the LM head. Times of one, bytes of all."""

    repeats: int
    fixed_s: float
    compute_s: float  # per row
    weights_s: float
    traffic_s: float  # per row
    weights_bytes: float
    traffic_bytes: float  # per row


class Lane(NamedTuple):
    """Of the whole pass where nothing else is said."""

    launch_s: float  # every pass: element-wise kernels and all-reduces
    layers: tuple[Gemm, ...]
    head: Gemm
    element_wise_s: float  # per token
    element_wise_bytes: float  # per token
    all_reduce_s: float  # per token
    prefill_launch_s: float
    prefill_token_s: float
    prefill_token_bytes: float
    score_s: float  # per pair of query and key
    decode_launch_s: float  # one layer
    decode_kv_s: float  # one layer, per context token
    decode_row_s: float  # one layer


def lane(hardware: Hardware, shape: ModelShape, sms: int) -> Lane:
    """A lane of `sms` of the hardware's SMs. The hardware has to know the shape's format and number of GPUs."""
    assert 0 < sms <= hardware.sms, f"{sms=} of {hardware.name}'s {hardware.sms}"
    share = sms / hardware.sms
    scaling, attention, generation = (
        hardware.scaling,
        hardware.context_attention,
        hardware.generation_attention,
    )
    bytes_per_s = hardware.gemm.bytes_per_s * min(1.0, share / scaling.weights_saturating_share)
    kv_bytes_per_s = generation.bytes_per_s * min(1.0, share / scaling.attention_saturating_share)
    hidden, layers = shape.hidden_size, shape.num_layers
    launch_s = (LAYER_KERNELS * layers + PASS_KERNELS) * hardware.element_wise_launch_s
    all_reduce_s = 0.0
    if shape.gpus > 1:
        all_reduce = hardware.all_reduce[shape.gpus]
        launch_s += 2 * layers * all_reduce.launch_s
        all_reduce_s = 2 * layers * ACTIVATION_BYTES * hidden / all_reduce.bytes_per_s
    # A norm reads the residual and its addend and writes both; a rotation reads and writes.
    element_wise_values = 8 * hidden + 2 * shape.q_size + 4 * shape.kv_size + 3 * shape.intermediate
    element_wise_bytes = layers * ACTIVATION_BYTES * element_wise_values
    prefill_token_bytes = layers * ACTIVATION_BYTES * 2 * (shape.q_size + shape.kv_size)
    score_s = attention.per_score_s + shape.head_dim * attention.per_score_value_s
    return Lane(
        launch_s=launch_s,
        layers=(
            _gemm(hardware, shape, share, bytes_per_s, shape.q_size + 2 * shape.kv_size, hidden, layers),
            _gemm(hardware, shape, share, bytes_per_s, hidden, shape.q_size, layers),
            _gemm(hardware, shape, share, bytes_per_s, 2 * shape.intermediate, hidden, layers),
            _gemm(hardware, shape, share, bytes_per_s, hidden, shape.intermediate, layers),
        ),
        head=_gemm(hardware, shape, share, bytes_per_s, shape.vocabulary, hidden, 1),
        element_wise_s=element_wise_bytes / bytes_per_s,
        element_wise_bytes=element_wise_bytes,
        all_reduce_s=all_reduce_s,
        prefill_launch_s=layers * attention.launch_s,
        # Far below the memory's speed, so it is tiles that take this time, and they are spread over SMs.
        prefill_token_s=prefill_token_bytes / (attention.bytes_per_s * share),
        prefill_token_bytes=prefill_token_bytes,
        score_s=layers * shape.heads * score_s / share,
        decode_launch_s=generation.launch_s,
        decode_kv_s=shape.kv_bytes_per_token / layers / kv_bytes_per_s,
        decode_row_s=shape.kv_heads * generation.per_row_head_s / share,
    )


def _gemm(
    hardware: Hardware, shape: ModelShape, share: float, bytes_per_s: float, n: int, k: int, repeats: int
) -> Gemm:
    """Rows of k values times weights of n * k."""
    # Only bfloat16 was measured; another format is as much quicker as its peak is higher.
    peak = hardware.flops_per_s[DTYPES[shape.bytes_per_parameter]] / hardware.flops_per_s["bfloat16"]
    weights_bytes = shape.bytes_per_parameter * n * k
    row_bytes = shape.bytes_per_parameter * k + ACTIVATION_BYTES * n
    return Gemm(
        repeats=repeats,
        fixed_s=hardware.gemm.launch_s + k * hardware.gemm.per_depth_s,
        compute_s=2 * n * k / (hardware.gemm.flops_per_s * peak * share),
        weights_s=weights_bytes / bytes_per_s,
        traffic_s=row_bytes / bytes_per_s,
        weights_bytes=repeats * weights_bytes,
        traffic_bytes=repeats * row_bytes,
    )
