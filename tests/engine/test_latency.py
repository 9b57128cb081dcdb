"""Rates measured from passes."""

from __future__ import annotations

import pytest

from drift_engine.scheduling.latency import MeasuredRates


def test_nothing_is_known_before_the_first_pass() -> None:
    rates = MeasuredRates()
    assert rates.prefill_s(100, 0) is None
    assert rates.decode_s(8, 100) is None
    assert rates.prefill_tokens_per_s() == 0.0


def test_a_line_is_found_from_its_points() -> None:
    rates = MeasuredRates()
    for tokens in (16, 64, 256, 512, 1024):
        rates.observe(prefill_tokens=tokens, decode_rows=0, seconds=0.004 + tokens * 0.0002)
    assert rates.prefill_s(800, 0) == pytest.approx(0.004 + 800 * 0.0002)
    assert rates.prefill_tokens_per_s() == pytest.approx(512 / (0.004 + 512 * 0.0002))


def test_a_change_of_speed_is_followed() -> None:
    rates = MeasuredRates()
    for _ in range(50):
        for rows in (4, 16):
            rates.observe(prefill_tokens=0, decode_rows=rows, seconds=0.01 + rows * 0.001)
    for _ in range(400):
        for rows in (4, 16):
            rates.observe(prefill_tokens=0, decode_rows=rows, seconds=0.02 + rows * 0.002)
    assert rates.decode_s(10, 0) == pytest.approx(0.04, rel=0.02)


def test_one_size_only_scales_upwards_in_proportion() -> None:
    rates = MeasuredRates()
    for _ in range(3):
        rates.observe(prefill_tokens=100, decode_rows=0, seconds=0.05)
    assert rates.prefill_s(200, 0) == pytest.approx(0.1)
    assert rates.prefill_s(50, 0) == pytest.approx(0.05)


def test_the_decode_rows_share_of_a_fused_pass_is_taken_off() -> None:
    rates = MeasuredRates()
    for _ in range(5):
        rates.observe(prefill_tokens=0, decode_rows=8, seconds=0.02)
    for tokens in (128, 256, 512):
        rates.observe(prefill_tokens=tokens, decode_rows=8, seconds=0.02 + tokens * 0.0001)
    assert rates.prefill_s(300, 0) == pytest.approx(0.03)
