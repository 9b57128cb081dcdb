"""Known GPUs: their sizes and how they split."""

from __future__ import annotations

import subprocess
import sys

import pytest

from drift_engine.errors import OptionsError
from drift_engine.hardware import profiles, splits


@pytest.mark.parametrize("name", profiles.names())
def test_every_profile_reads_and_says_where_it_comes_from(name: str) -> None:
    hardware = profiles.named(name)
    assert hardware.name == name
    assert any("Apache-2.0" in source for source in hardware.sources)
    # What an operation reaches is below the data sheet.
    assert hardware.gemm.bytes_per_s < hardware.bytes_per_s
    assert hardware.generation_attention.bytes_per_s < hardware.bytes_per_s
    assert hardware.gemm.flops_per_s < hardware.flops_per_s["bfloat16"]


def test_what_was_not_measured_is_said_to_be_estimated() -> None:
    assert not profiles.named("h200").estimated
    assert profiles.named("h100").estimated


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(OptionsError, match="hardware: 'b300' is unknown; known: h100, h200"):
        profiles.named("b300")


def test_a_path_is_no_name() -> None:
    with pytest.raises(OptionsError):
        profiles.named("../profiles/h200")


def test_splits_are_whole_groups_and_the_last_group_takes_what_is_left() -> None:
    hardware = profiles.named("h200")
    found = [(split.decode_sms, split.prefill_sms) for split in splits(hardware)]
    assert found == [(sms, 132 - sms) for sms in range(8, 121, 8)]


def test_loads_no_torch() -> None:
    program = (
        "import sys, drift_engine.hardware; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
