"""Calibration finds the costs behind noisy timings, and never impossible ones."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift_engine.latency import nnls
from drift_engine.latency.costs import Costs, DecodeCost, PrefillCost
from drift_engine.latency.fitting import Fit, Measurement, fit
from drift_engine.latency.loads import Load
from drift_engine.latency.model import LatencyModel
from latency_truth import SMS, decode_loads, fused_loads, prefill_loads, seconds, truth


def measured(loads: list[Load], sms: list[int], noise: float = 0.0, seed: int = 0) -> list[Measurement]:
    rng = random.Random(seed)
    return [
        Measurement(load, s, seconds(load, s) * rng.uniform(1 - noise, 1 + noise))
        for s in sms
        for load in loads
    ]


def all_loads() -> list[Load]:
    return [*prefill_loads(), *decode_loads(), *fused_loads()]


def test_exact_timings_give_the_exact_costs() -> None:
    found = fit(measured(all_loads(), SMS))
    assert found.worst < 1e-6
    for sms in SMS:
        assert found.prefill[sms].coefficients == pytest.approx(truth(sms).prefill.coefficients, rel=1e-3)
        assert found.decode[sms].coefficients == pytest.approx(truth(sms).decode.coefficients, rel=1e-3)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 1000))
def test_noise_averages_out(seed: int) -> None:
    found = fit(measured(all_loads(), SMS, noise=0.05, seed=seed))
    assert found.mape < 0.04
    assert found.worst < 0.12
    model = LatencyModel()
    model.calibrate(found)
    for sms in SMS:
        for load in all_loads():
            assert model.pass_s(load, sms) == pytest.approx(seconds(load, sms), rel=0.08)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(all_loads()), st.sampled_from(SMS), st.floats(1e-4, 1.0)),
        min_size=1,
        max_size=30,
    )
)
def test_any_timings_give_possible_costs(timings: list[tuple[Load, int, float]]) -> None:
    found = fit([Measurement(*timing) for timing in timings])
    assert_possible(found)


def assert_possible(found: Fit) -> None:
    for costs in (found.prefill, found.decode):
        previous: tuple[float, ...] | None = None
        for sms in sorted(costs):
            coefficients = costs[sms].coefficients
            assert all(0 <= value < float("inf") for value in coefficients)
            if previous is not None:
                pairs = zip(previous, coefficients, strict=True)
                assert all(more <= fewer * (1 + 1e-12) for fewer, more in pairs)
            previous = coefficients


def test_each_phase_is_fitted_where_it_was_measured() -> None:
    found = fit(measured(prefill_loads(), [96, 132]) + measured(decode_loads(), [32]))
    assert set(found.prefill) == {96, 132}
    assert set(found.decode) == {32}


def test_fused_passes_alone_teach_prefill() -> None:
    found = fit(measured(fused_loads(), [132]) + measured(decode_loads(), [132]))
    cost, expected = found.prefill[132], truth(132).prefill
    assert cost.per_new_token_s == pytest.approx(expected.per_new_token_s, rel=1e-3)
    constant_s = cost.per_pass_s + cost.per_fused_pass_s
    assert constant_s == pytest.approx(expected.per_pass_s + expected.per_fused_pass_s, rel=1e-3)


def test_a_fused_pass_does_not_pay_for_the_weights_twice() -> None:
    model = LatencyModel(truth)
    fused = fused_loads()[0]
    parts = [
        Load.decode(fused.decode_rows, fused.decode_context_tokens),
        Load.prefill([(fused.new_tokens, 0)]),
    ]
    together_s = model.pass_s(fused, 132)
    apart_s = sum(model.pass_s(part, 132) or 0.0 for part in parts)
    assert together_s is not None
    assert together_s < apart_s


@pytest.mark.parametrize(
    "measurements",
    [
        pytest.param([], id="none"),
        pytest.param([Measurement(Load.decode(1, 10), 8, 0.0)], id="no time"),
        pytest.param([Measurement(Load.decode(1, 10), 0, 0.1)], id="no SMs"),
        pytest.param([Measurement(Load(), 8, 0.1)], id="no work"),
    ],
)
def test_what_is_no_measurement_is_refused(measurements: list[Measurement]) -> None:
    with pytest.raises(ValueError, match=r"measurements|timed pass"):
        fit(measurements)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 6))
def test_non_negative_least_squares_is_optimal(seed: int, rows: int, unknowns: int) -> None:
    """By the conditions of Karush, Kuhn and Tucker."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(rows, unknowns)), rng.normal(size=rows)
    x = nnls.solve(a, b)
    gradient = a.T @ (b - a @ x)
    assert (x >= 0).all()
    assert (gradient <= 1e-6).all()
    assert np.abs(gradient[x > 0]).max(initial=0.0) <= 1e-6


def test_the_truth_of_these_tests_is_possible() -> None:
    costs: list[Costs] = [truth(sms) for sms in SMS]
    assert_possible(
        Fit(
            prefill={s: PrefillCost(*c.prefill.coefficients) for s, c in zip(SMS, costs, strict=True)},
            decode={s: DecodeCost(*c.decode.coefficients) for s, c in zip(SMS, costs, strict=True)},
            mape=0.0,
            worst=0.0,
            measurements=0,
        )
    )
