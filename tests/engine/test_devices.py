"""The parts of a torch device that need no model."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_engine.devices.base import Row
from drift_engine.devices.page_tables import PageTables
from drift_engine.devices.randomness import uniform


def row(request_id: str, pages: list[int]) -> Row:
    return Row(request_id, [0], 0, pages, None)


def test_gathered_tables_are_the_requests_pages() -> None:
    tables = PageTables(rows=1, width=8)
    pages = {"a": [3, 1], "b": [7], "c": [2, 4, 6]}
    gathered = tables.gather([row(name, pages[name]) for name in "abc"])
    assert gathered.shape == (3, 3)
    for index, name in enumerate("abc"):
        assert gathered[index, : len(pages[name])].tolist() == pages[name]


def test_a_grown_request_shows_its_new_pages() -> None:
    tables = PageTables(rows=2, width=8)
    tables.gather([row("a", [5])])
    assert tables.gather([row("a", [5, 9])]).tolist() == [[5, 9]]


def test_a_released_row_serves_another_request() -> None:
    tables = PageTables(rows=1, width=4)
    for name in ("a", "b", "c"):
        assert tables.gather([row(name, [ord(name)])]).tolist() == [[ord(name)]]
        tables.release(name)


@given(seed=st.integers(-(2**63), 2**63 - 1), index=st.integers(0, 10**6))
def test_a_uniform_is_in_range_and_exact_in_float32(seed: int, index: int) -> None:
    value = uniform(seed, index)
    assert 0.0 <= value < 1.0
    assert float(np.float32(value)) == value
    assert uniform(seed, index) == value


def test_uniforms_are_uniform_over_seeds_and_over_indices() -> None:
    for values in ([uniform(seed, 0) for seed in range(4000)], [uniform(1, i) for i in range(4000)]):
        assert np.mean(values) == pytest.approx(0.5, abs=0.02)
        assert np.std(values) == pytest.approx(12**-0.5, abs=0.02)
        assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.05


def test_the_draws_of_a_seed_stay_what_they_were() -> None:
    """A seeded request resumed by a newer version must go on with the same tokens."""
    assert [uniform(42, index) for index in range(3)] == [
        0.9557467103004456,
        0.48634952306747437,
        0.06735783815383911,
    ]
