"""The ladder from partitions with their own workqueues down to nothing, and what a node says about it."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

import core_harness
import drift_tiny
from drift_engine import wire
from drift_engine.core import process
from drift_engine.devices import sharing
from drift_engine.errors import OptionsError
from drift_engine.options import NodeOptions
from drift_engine.wire import Sharing
from drift_kernels.driver_errors import DriverError
from fake_gpu_driver import FakeDriver
from host_streams import HostGpu, HostStreams


class NoDriver(HostStreams):
    def driver(self) -> FakeDriver:
        raise DriverError("cuInit", None, "no driver was found")


def best(driver: FakeDriver, *, priorities: bool = True) -> sharing.Shared:
    return sharing.best(HostStreams(HostGpu(), driver, priorities=priorities))


@pytest.mark.parametrize(
    ("driver", "expected", "reason"),
    [
        (
            FakeDriver(132, 8),
            Sharing.BALANCED,
            "132 SMs in 16 groups of 8 and 4 over, given to prefill; 8 splits",
        ),
        (FakeDriver(132, 8, queues=False), Sharing.BY_COUNT, "workqueues came with CUDA 13.1"),
        (FakeDriver(132, 8, refuse={"cuGreenCtxCreate": 801}), Sharing.OVERLAP, "can't be partitioned"),
        (FakeDriver(132, 8, refuse={"cuGreenCtxStreamCreate": None}), Sharing.OVERLAP, "CUDA 12.5"),
        (FakeDriver(132, 8, contexts=7), Sharing.OVERLAP, "too little GPU memory"),
        (FakeDriver(12, 8), Sharing.OVERLAP, "1 group of 12 SMs: too few to split"),
    ],
)
def test_the_best_that_the_driver_bears_and_why(driver: FakeDriver, expected: Sharing, reason: str) -> None:
    shared = best(driver)
    assert shared.sharing is expected
    assert reason in shared.reason
    assert len(shared.parts) == (1 if expected is Sharing.OVERLAP else 8)
    for part in shared.parts:
        together = part.split.decode_sms + part.split.prefill_sms
        assert together == (2 * driver.total if expected is Sharing.OVERLAP else driver.total)
    if expected is Sharing.OVERLAP:
        assert not driver.alive
    shared.close()
    assert not driver.alive


def test_a_refusal_is_told_once() -> None:
    reason = best(FakeDriver(132, 8, refuse={"cuGreenCtxCreate": 801})).reason
    assert reason.count("cuGreenCtxCreate") == 1


def test_without_partitions_and_priorities_there_is_nothing_to_share() -> None:
    shared = best(FakeDriver(12, 8), priorities=False)
    assert shared.sharing is Sharing.NONE
    assert shared.parts == ()
    assert "too few to split" in shared.reason
    assert "no priorities here" in shared.reason


def test_a_machine_without_the_binding_overlaps() -> None:
    shared = sharing.best(NoDriver(HostGpu(), FakeDriver(8, 2)))
    assert shared.sharing is Sharing.OVERLAP
    assert [part.split for part in shared.parts] == [wire.Split(8, 8)]
    assert "cuInit: no driver was found" in shared.reason


@given(total=st.integers(4, 40), smallest=st.sampled_from([1, 2, 8]), nth=st.integers(1, 90))
def test_one_refused_call_costs_one_rung_and_leaves_nothing_behind(
    total: int, smallest: int, nth: int
) -> None:
    driver = FakeDriver(total, smallest, refuse_nth=nth)
    shared = best(driver)
    calls_of_one_rung = FakeDriver(total, smallest)
    splittable = total // smallest >= 2
    if splittable:
        best(calls_of_one_rung)
        refused = nth <= calls_of_one_rung.calls
        assert shared.sharing is (Sharing.BY_COUNT if refused else Sharing.BALANCED)
        assert ("(999)" in shared.reason) == refused
    else:
        assert shared.sharing is Sharing.OVERLAP
    assert len(driver.alive) == 4 * len(shared.parts) * splittable  # a context and a stream for each part
    shared.close()
    assert not driver.alive


def test_overlap_can_be_asked_for() -> None:
    driver = FakeDriver(132, 8)
    shared = sharing.overlapping(HostStreams(HostGpu(), driver))
    assert shared.sharing is Sharing.OVERLAP
    assert [part.split for part in shared.parts] == [wire.Split(132, 132)]
    assert not driver.log


def test_a_node_that_must_multiplex_says_why_it_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(sharing.CONNECTIONS, "32")  # what starting a core sets would outlive the test
    path = drift_tiny.checkpoint_path()
    options = NodeOptions(model=str(path), mode=wire.Mode.MUX, device="cpu", threads=1, kv_bytes=8 << 20)
    with pytest.raises(
        OptionsError, match=r"can be split, which this one is not \(1 thread on 1 of \d+ cores\)"
    ):
        process.start(options, path, core_harness.Mailbox())


def test_more_hardware_queues_unless_the_environment_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(sharing.CONNECTIONS, raising=False)
    sharing.prepare()
    assert os.environ[sharing.CONNECTIONS] == "32"
    monkeypatch.setenv(sharing.CONNECTIONS, "4")
    sharing.prepare()
    assert os.environ[sharing.CONNECTIONS] == "4"
