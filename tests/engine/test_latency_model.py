"""The latency model as planners see it: cold, calibrated, serving, and beside a neighbour."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift_engine.latency import Errors, LatencyModel, Load
from drift_engine.latency.fitting import Measurement, fit
from drift_engine.latency.guard import DECODE_FACTOR, MOST_FACTOR, PREFILL_FACTOR
from latency_truth import SMS, decode_loads, fused_loads, prefill_loads, seconds, truth

DECODE = Load.decode(16, 16 * 1024)
PREFILL = Load.prefill([(512, 0)])
LOADS = [*prefill_loads(), *decode_loads(), *fused_loads()]


def told(
    model: LatencyModel, load: Load, sms: int, factor: float = 1.0, neighbour: Load | None = None
) -> None:
    model.observe(load, sms, factor * seconds(load, sms), neighbour, 0.0)


def known_s(model: LatencyModel, load: Load, sms: int) -> float:
    predicted_s = model.pass_s(load, sms)
    assert predicted_s is not None
    return predicted_s


def calibrated() -> LatencyModel:
    model = LatencyModel()
    model.calibrate(fit([Measurement(load, sms, seconds(load, sms)) for load in LOADS for sms in SMS]))
    return model


# cold -------------------------------------------------------------------------------------------------------


def test_nothing_is_known_at_first() -> None:
    model = LatencyModel()
    for load in (DECODE, PREFILL, DECODE + PREFILL):
        assert model.pass_s(load, 2) is None
        assert model.beside_s(load, 2, PREFILL) is None
    assert model.prefill_tokens_per_s(2) == 0.0
    assert model.errors() == Errors(0.0, 0.0, 0.0, 0.0, 0, 0, 0, 0)


def test_one_prefill_tells_others_in_proportion() -> None:
    model = LatencyModel()
    model.observe(PREFILL, 2, 0.1, None, 0.0)
    assert known_s(model, PREFILL, 2) == pytest.approx(0.1)
    assert known_s(model, Load.prefill([(1024, 0)]), 2) == pytest.approx(0.2, rel=0.1)
    assert known_s(model, Load.prefill([(64, 0)]), 2) < 0.03
    assert known_s(model, PREFILL, 1) == pytest.approx(0.2)  # half the cores
    assert known_s(model, PREFILL, 4) == pytest.approx(0.1)  # not known to be quicker
    assert model.prefill_tokens_per_s(2) == pytest.approx(5120)
    assert model.pass_s(DECODE, 2) is None
    assert known_s(model, DECODE + PREFILL, 2) == pytest.approx(0.1)  # all that is known of it


def test_one_decode_tells_others_in_proportion() -> None:
    model = LatencyModel()
    model.observe(DECODE, 2, 0.02, None, 0.0)
    assert known_s(model, DECODE, 2) == pytest.approx(0.02)
    assert 0.02 < known_s(model, Load.decode(32, 32 * 1024), 2) < 0.04
    assert known_s(model, Load.decode(1, 1024), 2) < 0.02
    assert model.pass_s(PREFILL, 2) is None
    assert model.pass_s(DECODE + PREFILL, 2) is None


def test_a_fused_pass_alone_tells_prefills() -> None:
    model = LatencyModel()
    model.observe(DECODE + PREFILL, 2, 0.1, None, 0.0)
    assert known_s(model, DECODE + PREFILL, 2) == pytest.approx(0.1)
    assert known_s(model, PREFILL, 2) <= 0.1
    assert model.pass_s(DECODE, 2) is None


def test_two_kinds_make_the_third() -> None:
    model = LatencyModel()
    model.observe(PREFILL, 2, 0.1, None, 0.0)
    model.observe(DECODE, 2, 0.02, None, 0.0)
    together_s = known_s(model, DECODE + PREFILL, 2)
    assert 0.1 < together_s < 0.12


def test_a_few_passes_of_two_sizes_are_enough_to_plan() -> None:
    """A line is found from its points, as sizing a chunk needs it."""
    model = LatencyModel()
    for _ in range(3):
        for tokens in (64, 256, 1024):
            model.observe(Load.prefill([(tokens, 0)]), 2, 0.02 + tokens * 2e-4, None, 0.0)
    for tokens in (64, 128, 512, 1024):
        assert known_s(model, Load.prefill([(tokens, 0)]), 2) == pytest.approx(0.02 + tokens * 2e-4, rel=0.1)


def test_a_prior_knows_all_loads_and_one_pass_corrects_its_speed() -> None:
    model = LatencyModel(truth)
    assert known_s(model, PREFILL, 64) == pytest.approx(seconds(PREFILL, 64))
    told(model, PREFILL, 132, factor=2.0)
    assert known_s(model, PREFILL, 64) == pytest.approx(2 * seconds(PREFILL, 64), rel=0.1)
    assert known_s(model, DECODE, 64) == pytest.approx(seconds(DECODE, 64))


def test_what_is_no_pass_is_ignored() -> None:
    model = LatencyModel()
    model.observe(Load(), 2, 0.1, None, 0.0)
    model.observe(DECODE, 2, 0.0, None, 0.0)
    assert model.pass_s(DECODE, 2) is None
    assert model.pass_s(Load(), 2) == 0.0


# serving ----------------------------------------------------------------------------------------------------


@settings(max_examples=3, deadline=None)
@given(st.integers(0, 1000))
def test_traffic_alone_makes_predictions_good(seed: int) -> None:
    rng = random.Random(seed)
    model = LatencyModel()
    for _ in range(2000):
        load, sms = rng.choice(LOADS), rng.choice([32, 132])
        told(model, load, sms, rng.gauss(1.0, 0.02))
    for load in LOADS:
        for sms in (32, 132):
            assert known_s(model, load, sms) == pytest.approx(seconds(load, sms), rel=0.05)
    errors = model.errors()
    assert max(errors.decode_mape, errors.prefill_mape, errors.fused_mape) < 0.05
    assert (
        1990 <= errors.decode_passes + errors.prefill_passes + errors.fused_passes < 2000
    )  # not the first ones


def test_a_calibrated_model_stays_good_under_narrow_traffic() -> None:
    rng = random.Random(0)
    model = calibrated()
    for _ in range(300):
        told(model, DECODE, 132, rng.gauss(1.0, 0.03))
        told(model, DECODE + PREFILL, 132, rng.gauss(1.0, 0.03))
    for load in LOADS:
        assert known_s(model, load, 132) == pytest.approx(seconds(load, 132), rel=0.2)


def test_a_fused_pass_is_as_long_as_its_longer_part_at_least() -> None:
    model = calibrated()
    tiny = Load.prefill([(1, 0)])
    together_s = known_s(model, DECODE + tiny, 132)
    assert together_s >= known_s(model, DECODE, 132)
    assert together_s >= known_s(model, tiny, 132)


COUNT = st.integers(0, 5000)
PASSES = st.lists(
    st.tuples(
        st.sampled_from(LOADS), st.sampled_from(SMS), st.floats(1e-4, 1.0), st.sampled_from([None, PREFILL])
    ),
    min_size=1,
    max_size=15,
)


@settings(max_examples=25, deadline=None)
@given(
    PASSES,
    st.lists(COUNT, min_size=6, max_size=6),
    st.lists(COUNT, min_size=6, max_size=6),
    st.tuples(st.integers(1, 140), st.integers(1, 140)),
    st.booleans(),
)
def test_more_work_or_fewer_sms_never_take_less_time(
    passes: list[tuple[Load, int, float, Load | None]],
    work: list[int],
    more: list[int],
    lanes: tuple[int, int],
    prior: bool,
) -> None:
    model = LatencyModel(truth if prior else None)
    told(model, PREFILL, 64)
    told(model, DECODE, 64)
    for now_s, (load, sms, took_s, neighbour) in enumerate(passes):
        model.observe(load, sms, took_s, neighbour, now_s)
    small = Load(*work)
    large = small + Load(*more)
    for rows in (Load(decode_rows=1), Load(prefill_rows=1), Load(decode_rows=1, prefill_rows=1)):
        fewer_s = known_s(model, large + rows, min(lanes))
        assert known_s(model, small + rows, min(lanes)) <= fewer_s * (1 + 1e-9)
        assert known_s(model, large + rows, max(lanes)) <= fewer_s * (1 + 1e-9)
        assert known_s(model, small + rows, max(lanes)) >= 0


@pytest.mark.parametrize(("decode_sms", "prefill_sms"), [(16, 116), (64, 68), (132, 132)])
def test_the_cost_of_a_split_makes_the_same_predictions(decode_sms: int, prefill_sms: int) -> None:
    model = calibrated()
    cost = model.split_cost(decode_sms, prefill_sms)
    assert cost is not None
    a, b, c, d = cost.prefill_s
    chunk = Load.prefill([(512, 2048)])
    expected_s = a * chunk.new_squared + b * chunk.new_times_reused + c * chunk.new_tokens + d
    assert known_s(model, chunk, prefill_sms) == pytest.approx(expected_s)
    per_context_token_s, per_row_s, per_pass_s = cost.decode_s
    expected_s = per_context_token_s * DECODE.decode_context_tokens + per_row_s * 16 + per_pass_s
    assert known_s(model, DECODE, decode_sms) == pytest.approx(expected_s)
    assert cost.contention == DECODE_FACTOR


def test_a_split_has_no_cost_while_a_phase_is_unknown() -> None:
    model = LatencyModel()
    told(model, DECODE, 32)
    assert model.split_cost(32, 100) is None
    told(model, PREFILL, 100)
    assert model.split_cost(32, 100) is not None


# beside a neighbour -----------------------------------------------------------------------------------------


def test_factors_start_at_the_published_bounds() -> None:
    model = calibrated()
    assert model.beside_s(DECODE, 32, PREFILL) == pytest.approx(DECODE_FACTOR * known_s(model, DECODE, 32))
    assert model.beside_s(PREFILL, 64, DECODE) == pytest.approx(PREFILL_FACTOR * known_s(model, PREFILL, 64))
    assert model.beside_s(DECODE, 32, Load()) == known_s(model, DECODE, 32)


def test_contention_is_learned_beside_and_leaves_the_prediction_alone() -> None:
    rng = random.Random(0)
    model = calibrated()
    alone_s = known_s(model, DECODE, 32)
    for _ in range(800):
        told(model, DECODE, 32, rng.gauss(1.5, 0.03), neighbour=PREFILL)
    assert known_s(model, DECODE, 32) == alone_s
    assert model.beside_s(DECODE, 32, PREFILL) == pytest.approx(1.55 * alone_s, rel=0.03)
    errors = model.errors()
    assert 0 < errors.decode_under_share < 0.12
    assert errors.guarded_decode_passes == 800
    assert errors.decode_passes == 0


def test_a_prediction_far_too_long_is_corrected_beside_a_neighbour() -> None:
    model = LatencyModel(truth)
    for _ in range(50):
        told(model, DECODE, 32, 0.5, neighbour=PREFILL)
    assert known_s(model, DECODE, 32) == pytest.approx(0.5 * seconds(DECODE, 32), rel=0.15)


def test_a_prediction_far_too_short_is_corrected_beside_a_neighbour() -> None:
    model = LatencyModel(truth)
    for _ in range(400):
        told(model, DECODE, 32, 20.0, neighbour=PREFILL)
    bound_s = model.beside_s(DECODE, 32, PREFILL)
    assert bound_s is not None
    assert bound_s >= 0.9 * 20 * seconds(DECODE, 32)
    assert known_s(model, DECODE, 32) >= 0.9 * 20 / MOST_FACTOR * seconds(DECODE, 32)


def test_without_any_knowledge_a_pass_beside_a_neighbour_is_a_start() -> None:
    model = LatencyModel()
    told(model, DECODE, 32, DECODE_FACTOR, neighbour=PREFILL)
    assert known_s(model, DECODE, 32) == pytest.approx(seconds(DECODE, 32))


# cost -------------------------------------------------------------------------------------------------------


def test_predicting_and_learning_are_cheap() -> None:
    """Bounds twenty times the goals, for a busy machine: a few and twenty microseconds."""
    model = calibrated()
    load = DECODE + PREFILL

    def best_s(of: str) -> float:
        times = []
        for _ in range(5):
            start_s = time.perf_counter()
            for _ in range(100):
                if of == "predict":
                    model.beside_s(load, 100, PREFILL)
                else:
                    model.observe(load, 132, 0.02, None, 0.0)
            times.append((time.perf_counter() - start_s) / 100)
        return min(times)

    assert best_s("predict") < 60e-6
    assert best_s("observe") < 400e-6


def test_contention_starts_where_a_calibration_found_it() -> None:
    model = LatencyModel()
    decode, prefill = Load.decode(8, 2048), Load.prefill([(256, 0)])
    model.observe(decode, 1, 0.10, None, 0.0)
    model.observe(prefill, 1, 0.40, None, 0.0)
    model.calibrate_contention([(decode, 1, 0.104), (decode, 1, 0.110), (prefill, 1, 0.42)])
    other = Load.prefill([(4000, 1000)])
    assert model.beside_s(decode, 1, other) == pytest.approx(0.110)
    assert model.beside_s(prefill, 1, decode) == pytest.approx(0.42)
    restored = LatencyModel()
    restored.restore(model.snapshot())
    assert restored.beside_s(decode, 1, other) == pytest.approx(0.110)
