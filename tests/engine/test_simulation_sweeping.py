"""The search for the highest rate that keeps a promise, over functions that need no simulation."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from drift_engine.simulation import sweeping


@given(st.floats(math.log(1e-4), math.log(1e4)).map(math.exp))
@example(1e-4)
@example(1.0)
@example(1e4)
def test_the_edge_is_found(edge: float) -> None:
    found = sweeping.highest(lambda scale: (0.5, scale <= edge))
    assert found.rate_scale is not None
    assert found.rate_scale <= edge < found.rate_scale * (1 + sweeping.CLOSE)
    assert len(found.tried) <= sweeping.MOST_RUNS
    assert len({tried.rate_scale for tried in found.tried}) == len(found.tried)
    assert all(tried.kept == (tried.rate_scale <= edge) for tried in found.tried)
    assert found.rate_scale in [tried.rate_scale for tried in found.tried]


@given(st.floats(0.01, 100.0))
def test_it_begins_where_it_is_told(first: float) -> None:
    found = sweeping.highest(lambda scale: (1.0, scale <= first), first)
    assert found.tried[0].rate_scale == first
    assert found.rate_scale == pytest.approx(first, rel=sweeping.CLOSE)


def test_no_rate_keeps() -> None:
    found = sweeping.highest(lambda scale: (0.1, False))
    assert found.rate_scale is None
    assert len(found.tried) == sweeping.MOST_RUNS
    assert all((tried.attainment, tried.kept) == (0.1, False) for tried in found.tried)


def test_every_rate_keeps() -> None:
    found = sweeping.highest(lambda scale: (1.0, True))
    assert found.rate_scale == max(tried.rate_scale for tried in found.tried)
    assert len(found.tried) == sweeping.MOST_RUNS


@given(st.lists(st.booleans(), min_size=sweeping.MOST_RUNS, max_size=sweeping.MOST_RUNS))
def test_it_ends_whatever_it_hears(answers: list[bool]) -> None:
    """Of two arrangements of requests the faster may by chance do better."""
    line = iter(answers)
    found = sweeping.highest(lambda scale: (0.5, next(line)))
    kept = [tried.rate_scale for tried in found.tried if tried.kept]
    assert (found.rate_scale in kept) if kept else found.rate_scale is None
