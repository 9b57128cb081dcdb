"""The prior's orders of magnitude, and what must hold whatever the device."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from drift_engine.latency.loads import Load
from drift_engine.latency.model import LatencyModel
from drift_engine.latency.roofline import Hardware, ModelShape, costs

LLAMA_8B = ModelShape(
    hidden_size=4096,
    num_layers=32,
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
    intermediate_size=14_336,
    vocab_size=128_256,
    bytes_per_parameter=2,
)
H200 = Hardware(flops_per_s=989e12, bytes_per_s=4.8e12, sms=132)

DECODE = Load.decode(32, 32 * 1024)
PREFILL = Load.prefill([(4096, 0)])


def model(shape: ModelShape = LLAMA_8B, hardware: Hardware = H200) -> LatencyModel:
    return LatencyModel(partial(costs, shape, hardware))


def test_parameters_are_counted() -> None:
    embeddings = LLAMA_8B.head_parameters  # as large again as the head
    assert LLAMA_8B.layer_parameters + LLAMA_8B.head_parameters + embeddings == pytest.approx(
        8.03e9, rel=0.001
    )


def test_an_8b_model_on_an_h200_takes_about_what_it_takes() -> None:
    """Decode reads 15 GB of weights and 4 GB of KV; a 4K prefill computes 65 TFLOP."""
    known = model()
    assert known.pass_s(DECODE, 132) == pytest.approx(6e-3, rel=0.25)
    assert known.pass_s(PREFILL, 132) == pytest.approx(115e-3, rel=0.25)


def test_decode_needs_fewer_sms_than_prefill() -> None:
    known = model()

    def slowdown(load: Load) -> float:
        few, all_ = known.pass_s(load, 44), known.pass_s(load, 132)
        assert few is not None
        assert all_ is not None
        return few / all_

    assert slowdown(PREFILL) > 2.5
    assert slowdown(DECODE) < 1.5


@pytest.mark.parametrize("load", [DECODE, PREFILL, DECODE + PREFILL])
def test_more_sms_are_never_slower(load: Load) -> None:
    known = model()
    times_s = [known.pass_s(load, sms) or 0.0 for sms in range(4, 140, 4)]
    assert times_s == sorted(times_s, reverse=True)
    assert times_s[-1] == times_s[-2]  # 132 is all there is


@pytest.mark.parametrize("load", [DECODE, PREFILL, DECODE + PREFILL])
def test_a_larger_model_and_a_slower_device_take_longer(load: Load) -> None:
    usual_s = model().pass_s(load, 64) or 0.0
    assert (model(replace(LLAMA_8B, num_layers=64)).pass_s(load, 64) or 0.0) > usual_s
    assert (model(hardware=replace(H200, flops_per_s=300e12)).pass_s(load, 64) or 0.0) > usual_s
    assert (model(hardware=replace(H200, bytes_per_s=2e12)).pass_s(load, 64) or 0.0) > usual_s
    assert (model(hardware=replace(H200, pass_overhead_s=1e-3)).pass_s(load, 64) or 0.0) > usual_s


def test_grouped_heads_make_context_cheaper() -> None:
    full = costs(replace(LLAMA_8B, num_kv_heads=32), H200, 64).decode.per_context_token_s
    assert costs(LLAMA_8B, H200, 64).decode.per_context_token_s == pytest.approx(full / 4)
