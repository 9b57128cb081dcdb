"""Partitions over a driver that follows CUDA's documented rules, and the real driver's calls over a faked binding."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from drift_kernels import partitions
from drift_kernels.driver_errors import DriverError
from drift_kernels.green_contexts import CudaDriver
from fake_gpu_driver import FakeDriver


@given(groups=st.integers(2, 80), most=st.integers(1, 12))
def test_sizes_are_few_and_evenly_spaced(groups: int, most: int) -> None:
    sizes = partitions.sizes(groups, most)
    assert 1 <= len(sizes) <= most
    assert list(sizes) == sorted(set(sizes))
    assert sizes[0] >= 1
    assert sizes[-1] < groups
    if len(sizes) > 1:
        assert (sizes[0], sizes[-1]) == (1, groups - 1)
        steps = [b - a for a, b in itertools.pairwise(sizes)]
        assert max(steps) - min(steps) <= 1


def test_an_h100s_decode_sizes() -> None:
    made = partitions.create(FakeDriver(132, 8), balanced=True)
    assert [pair.decode.sms for pair in made.pairs] == [8, 24, 40, 56, 72, 88, 104, 120]
    assert [pair.prefill.sms for pair in made.pairs] == [124, 108, 92, 76, 60, 44, 28, 12]
    assert made.describe() == (
        "132 SMs in 16 groups of 8 and 4 over, given to prefill; 8 splits with workqueues of their own, by "
        "cuDevSmResourceSplitByCount; a driver that is not there"
    )


@given(
    total=st.integers(4, 200),
    smallest=st.sampled_from([1, 2, 4, 8]),
    lost=st.integers(0, 12),
    rest_aligned=st.booleans(),
    balanced=st.booleans(),
    most=st.integers(1, 9),
)
def test_parts_are_disjoint_and_report_what_they_got(
    total: int, smallest: int, lost: int, rest_aligned: bool, balanced: bool, most: int
) -> None:
    driver = FakeDriver(total, smallest, lost=lost, rest_aligned=rest_aligned)
    groups = (total - lost) // smallest
    if groups < 2:
        with pytest.raises(DriverError, match="too few to split"):
            partitions.create(driver, balanced=balanced, most=most)
        return
    made = partitions.create(driver, balanced=balanced, most=most)
    rest = total - groups * smallest
    assert (made.total_sms, made.group_sms, made.groups, made.rest_sms) == (total, smallest, groups, rest)
    assert made.rest_used == (rest > 0 and rest_aligned)
    for pair in made.pairs:
        decode, prefill = driver.contexts[pair.decode.stream].sms, driver.contexts[pair.prefill.stream].sms
        assert (pair.decode.sms, pair.prefill.sms) == (len(decode), len(prefill))
        assert not decode & prefill
        assert len(decode | prefill) == total - (0 if made.rest_used else rest)
    for smaller, larger in itertools.pairwise(made.pairs):
        # A decode part that grows keeps its SMs, so that what prefill still runs there is the new ones only.
        small, large = (driver.contexts[pair.decode.stream].sms for pair in (smaller, larger))
        assert small < large
    made.close()
    assert not driver.alive


def test_decode_streams_are_urgent_and_destroyed_last_pair_first() -> None:
    driver = FakeDriver(24, 8)
    partitions.create(driver, balanced=False).close()
    assert driver.log == [
        "urgent stream 1",
        "stream 2",
        "urgent stream 3",
        "stream 4",
        "destroy stream 4",
        "destroy stream 3",
        "destroy stream 2",
        "destroy stream 1",
    ]


@pytest.mark.parametrize(
    ("driver", "message"),
    [
        (
            FakeDriver(132, 8, queues=False),
            r"INVALID_RESOURCE_TYPE \(914\): .* workqueues came with CUDA 13.1",
        ),
        (FakeDriver(132, 8, contexts=5), r"cuGreenCtxCreate: .* \(2\): too little GPU memory"),
        (FakeDriver(132, 8, extra=8), "parts of 16 and 132 SMs on a GPU of 132: they overlap"),
        (FakeDriver(132, 8, refuse={"cuGreenCtxCreate": 801}), "can't be partitioned: green contexts need"),
        (FakeDriver(132, 8, refuse={"cuGreenCtxStreamCreate": None}), "cuGreenCtxStreamCreate: refused"),
        (
            FakeDriver(132, 8, refuse={"cuDevResourceGenerateDesc": 915}),
            "can't make a partition of these SMs",
        ),
        (FakeDriver(132, 8, refuse={"cuDeviceGetDevResource": 4242}), "see the CUDA driver API"),
    ],
)
def test_a_refusal_says_which_call_and_why_and_leaves_nothing(driver: FakeDriver, message: str) -> None:
    with pytest.raises(DriverError, match=message):
        partitions.create(driver, balanced=True)
    assert not driver.alive


# the real driver's calls -----------------------------------------------------------------------------------


class Status(int):
    name = "CUDA_ERROR_NOT_SUPPORTED"


def binding(**calls: Any) -> CudaDriver:
    """A CudaDriver over these calls instead of cuda-bindings."""
    driver = CudaDriver.__new__(CudaDriver)
    driver._cuda = SimpleNamespace(**calls)
    driver._device = 0
    return driver


def test_a_failed_call_carries_its_code() -> None:
    driver = binding(cuDriverGetVersion=lambda: (Status(801), 0))
    with pytest.raises(DriverError, match=r"cuDriverGetVersion: CUDA_ERROR_NOT_SUPPORTED \(801\)") as raised:
        driver.version()
    assert raised.value.error_code == 801


def test_a_call_that_the_binding_or_the_driver_lacks_is_named() -> None:
    def missing(*_: object) -> None:
        raise RuntimeError('Function "cuStreamDestroy" not found')

    with pytest.raises(DriverError, match="cuStreamDestroy: not in these cuda-bindings"):
        binding(CUstream=int).destroy_stream(1)
    with pytest.raises(DriverError, match='Function "cuStreamDestroy" not found: green contexts need'):
        binding(CUstream=int, cuStreamDestroy=missing).destroy_stream(1)


def test_old_bindings_without_workqueues_or_a_smallest_size() -> None:
    asked = []

    def split(count: int, sms: object, flags: int, fewest: int) -> tuple[Any, ...]:
        asked.append((count, fewest))
        return 0, ["group"] * count, min(count or 2, 2), "rest"

    driver = binding(CUdevResourceType=SimpleNamespace(), cuDevSmResourceSplitByCount=split)
    with pytest.raises(DriverError, match="older than CUDA 13"):
        driver.workqueues()
    assert driver.split(SimpleNamespace(sm=SimpleNamespace(smCount=16))) == (["group", "group"], "rest")
    assert asked == [(0, 1), (2, 1)]
    driver.split(SimpleNamespace(sm=SimpleNamespace(smCount=16, minSmPartitionSize=8)))
    assert asked[2:] == [(0, 8), (2, 8)]


def test_the_names_of_the_installed_binding() -> None:
    """The binding loads without a driver: what is used of it must be there."""
    driver = pytest.importorskip("cuda.bindings.driver")
    for name in (
        "cuCtxGetStreamPriorityRange",
        "cuDevResourceGenerateDesc",
        "cuDevSmResourceSplitByCount",
        "cuDeviceGet",
        "cuDeviceGetDevResource",
        "cuDriverGetVersion",
        "cuGreenCtxCreate",
        "cuGreenCtxDestroy",
        "cuGreenCtxGetDevResource",
        "cuGreenCtxStreamCreate",
        "cuInit",
        "cuStreamDestroy",
    ):
        assert callable(getattr(driver, name)), name
    assert int(driver.CUgreenCtxCreate_flags.CU_GREEN_CTX_DEFAULT_STREAM) == 1
    assert int(driver.CUstream_flags.CU_STREAM_NON_BLOCKING) == 1
    resource = driver.CUdevResource()
    resource.type = driver.CUdevResourceType.CU_DEV_RESOURCE_TYPE_SM
    resource.sm.smCount = 5
    assert CudaDriver.count(binding(), resource) == 5


# a real GPU -------------------------------------------------------------------------------------------------


@pytest.mark.gpu
def test_a_gpu_gives_every_pair_and_takes_it_back() -> None:
    torch.zeros(1, device="cuda")
    driver = CudaDriver(0)
    sms = torch.cuda.get_device_properties(0).multi_processor_count
    for _ in range(2):
        made = partitions.create(driver, balanced=False)
        assert made.total_sms == sms
        for pair in made.pairs:
            assert pair.decode.sms >= made.group_sms
            assert pair.decode.sms + pair.prefill.sms <= sms
            for part in (pair.decode, pair.prefill):
                stream = torch.cuda.ExternalStream(part.stream)  # type: ignore[no-untyped-call]
                with torch.cuda.stream(stream):
                    ones = torch.ones(1000, device="cuda")
                stream.synchronize()
                assert ones.sum().item() == 1000
        torch.cuda.synchronize()
        made.close()
