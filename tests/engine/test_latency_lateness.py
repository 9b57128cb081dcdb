"""How far fused passes outlast their predictions, and what the planner makes of it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_engine import wire
from drift_engine.latency import LatencyModel, Load, lateness
from drift_engine.latency.lateness import Lateness
from drift_engine.scheduling import planner
from latency_truth import truth
from planner_pictures import Speeds, decoding, new, state

FUSED = Load.decode(8, 8000) + Load.prefill([(256, 0)])


@given(seed=st.integers(0, 1000), spread=st.floats(0.0, 0.2))
def test_of_the_passes_to_come_nearly_all_keep_the_bound(seed: int, spread: float) -> None:
    dice, found = random.Random(seed), Lateness()
    for _ in range(lateness.RECENT_PASSES):
        found.observe(1.0 + abs(dice.gauss(0.0, spread)))
    later = [1.0 + abs(dice.gauss(0.0, spread)) for _ in range(1000)]
    assert sum(ratio > found.factor for ratio in later) <= 100  # 98 % of 200 passes is a coarse 98 %


def test_a_machine_that_became_steady_is_trusted_again() -> None:
    found = Lateness()
    for _ in range(lateness.RECENT_PASSES):
        found.observe(1.4)
    assert found.factor == 1.4
    for _ in range(lateness.RECENT_PASSES):
        found.observe(1.0)
    assert found.factor == 1.0


def test_a_few_passes_say_nothing_and_no_disturbance_says_too_much() -> None:
    found = Lateness()
    for _ in range(lateness.LEAST_PASSES - 1):
        found.observe(9.0)
    assert found.factor == 1.0
    found.observe(9.0)
    assert found.factor == lateness.MOST_FACTOR


@pytest.mark.parametrize(
    ("load", "neighbour", "counts"),
    [
        (FUSED, None, True),
        (FUSED, Load.prefill([(512, 0)]), False),  # the contention guard's
        (Load.decode(8, 8000), None, False),
        (Load.prefill([(256, 0)]), None, False),
    ],
)
def test_only_fused_passes_that_run_alone_count(load: Load, neighbour: Load | None, counts: bool) -> None:
    model = LatencyModel(truth)
    for number in range(lateness.RECENT_PASSES):
        predicted_s = model.pass_s(load, 132)
        assert predicted_s is not None
        model.observe(load, 132, predicted_s * (1.3 if number % 2 else 1 / 1.3), neighbour, 0.0)
    assert (model.fused_factor > 1.2) is counts


def chunk_tokens(fused_factor: float) -> int:
    speeds = Speeds(0.01, 1e-4, fused_factor=fused_factor)
    picture = state(waiting=(new("p", 2000),), running=(decoding("d", 9),), free=1000)
    return planner.plan(wire.Mode.FUSED, picture, speeds, 0.0).prefill[0].tokens


def test_chunks_shrink_where_passes_are_late() -> None:
    steady, late = chunk_tokens(1.0), chunk_tokens(1.3)
    assert late < steady
    assert chunk_tokens(1.05) == steady  # that much is left for the loop anyway
