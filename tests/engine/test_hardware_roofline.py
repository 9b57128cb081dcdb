"""Passes on hardware: more SMs are never slower, more work never quicker, and magnitudes are the GPU's."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_engine.errors import OptionsError
from drift_engine.hardware import Roofline, named, shapes
from drift_engine.latency.loads import Load

H200 = named("h200")
ROOFLINES = [
    Roofline(hardware, shapes.read(name, gpus))
    for hardware in (H200, named("h100"))
    for name, gpus in (("llama-120m", 1), ("llama-8b", 1), ("llama-70b", 8))
]
EIGHT_B = Roofline(H200, shapes.read("llama-8b"))

SMS = st.integers(1, 132)
MODELS = st.sampled_from(ROOFLINES)
DECODES = st.builds(
    lambda rows, tokens: Load.decode(rows, rows * tokens), st.integers(0, 512), st.integers(1, 40_000)
)
PREFILLS = st.builds(
    Load.prefill, st.lists(st.tuples(st.integers(1, 20_000), st.integers(0, 60_000)), max_size=4)
)
LOADS = st.builds(lambda decode, prefill: decode + prefill, DECODES, PREFILLS)
ROUNDING = 1 + 1e-9


@given(MODELS, LOADS, SMS, SMS)
def test_more_sms_are_never_slower(roofline: Roofline, load: Load, some: int, more: int) -> None:
    few, many = sorted((some, more))
    assert roofline.pass_s(load, many) <= roofline.pass_s(load, few) * ROUNDING


@given(MODELS, LOADS, LOADS, SMS)
def test_more_work_is_never_quicker(roofline: Roofline, load: Load, extra: Load, sms: int) -> None:
    assert roofline.pass_s(load, sms) <= roofline.pass_s(load + extra, sms) * ROUNDING


@given(MODELS, DECODES, PREFILLS, SMS)
def test_a_fused_pass_costs_no_more_than_two(
    roofline: Roofline, decode: Load, prefill: Load, sms: int
) -> None:
    apart_s = roofline.pass_s(decode, sms) + roofline.pass_s(prefill, sms)
    assert roofline.pass_s(decode + prefill, sms) <= apart_s * ROUNDING


@given(MODELS, LOADS, SMS)
def test_demand_is_a_share(roofline: Roofline, load: Load, sms: int) -> None:
    assert 0 <= roofline.demand(load, sms) <= 1


@given(MODELS, LOADS, LOADS, st.sampled_from(range(8, 121, 8)))
def test_a_neighbour_slows_within_the_published_bound(
    roofline: Roofline, load: Load, neighbour: Load, sms: int
) -> None:
    slowdown = roofline.slowdown(load, sms, neighbour, 132 - sms)
    assert 1 <= slowdown <= roofline.hardware.contention.bound
    if not neighbour:
        assert slowdown == 1


def test_nothing_takes_no_time() -> None:
    assert EIGHT_B.pass_s(Load(), 132) == 0
    assert EIGHT_B.demand(Load(), 132) == 0
    assert EIGHT_B.slowdown(Load(), 64, Load.decode(8, 8000), 68) == 1


def test_decode_of_one_row_is_little_more_than_reading_the_weights() -> None:
    reading_s = EIGHT_B.shape.weight_bytes / H200.bytes_per_s
    assert reading_s < EIGHT_B.pass_s(Load.decode(1, 128), 132) < 1.5 * reading_s
    assert EIGHT_B.demand(Load.decode(1, 128), 132) > 0.7


def test_a_long_prefill_is_little_more_than_its_arithmetic() -> None:
    matrices = 2 * 8192 * (EIGHT_B.shape.weight_bytes / 2 - 2 * 128_256 * 4096)
    scores = 4 * 32 * 32 * 128 * 8192**2 / 2
    peak_s = (matrices + scores) / H200.flops_per_s["bfloat16"]
    assert peak_s < EIGHT_B.pass_s(Load.prefill([(8192, 0)]), 132) < 2 * peak_s


def test_half_of_the_sms_double_a_prefill_and_leave_small_decodes_alone() -> None:
    prefill, decode = Load.prefill([(8192, 0)]), Load.decode(1, 128)
    assert EIGHT_B.pass_s(prefill, 66) == pytest.approx(2 * EIGHT_B.pass_s(prefill, 132), rel=0.05)
    assert EIGHT_B.pass_s(decode, 66) == pytest.approx(EIGHT_B.pass_s(decode, 132), rel=0.02)


def test_decode_suffers_from_a_neighbour_and_prefill_hardly() -> None:
    decode, prefill = Load.decode(32, 32 * 2048), Load.prefill([(2048, 0)])
    assert 1.05 < EIGHT_B.slowdown(decode, 64, prefill, 68) <= 1.3
    assert EIGHT_B.slowdown(prefill, 68, decode, 64) < EIGHT_B.slowdown(decode, 64, prefill, 68)
    assert EIGHT_B.slowdown(prefill, 68, decode, 64) < 1.08


def test_reused_tokens_cost_less_than_new_ones_and_more_than_none() -> None:
    alone, behind, whole = (
        EIGHT_B.pass_s(Load.prefill([chunk]), 132) for chunk in ((1024, 0), (1024, 8192), (9216, 0))
    )
    assert alone < behind < whole / 2


def test_more_gpus_are_quicker_but_not_in_proportion() -> None:
    load = Load.decode(16, 16 * 1024)
    times = [Roofline(H200, shapes.read("llama-70b", gpus)).pass_s(load, 132) for gpus in (1, 2, 4, 8)]
    assert times == sorted(times, reverse=True)
    assert times[3] > times[0] / 8


def test_eight_bit_weights_are_read_in_half_of_the_time() -> None:
    eight_bit = msgspec.structs.replace(EIGHT_B.shape, bytes_per_parameter=1)
    load = Load.decode(1, 128)
    assert 0.5 < Roofline(H200, eight_bit).pass_s(load, 132) / EIGHT_B.pass_s(load, 132) < 0.65


def test_formats_without_a_peak_are_refused() -> None:
    with pytest.raises(
        OptionsError, match="bytes_per_parameter: 4 is no format of h200; known: bfloat16, fp8"
    ):
        Roofline(H200, msgspec.structs.replace(EIGHT_B.shape, bytes_per_parameter=4))


def test_gpus_without_all_reduce_timings_are_refused() -> None:
    with pytest.raises(OptionsError, match="gpus: 16: h200 has all-reduce timings for 2, 4, 8 GPUs only"):
        Roofline(H200, shapes.read("llama-8b", 16))
