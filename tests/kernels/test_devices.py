"""Every implementation equals its reference on the devices that are really there."""

import pytest
import torch

import kernel_parity


def test_cpu_implementations_equal_their_references() -> None:
    torch.set_num_threads(1)
    rows = list(kernel_parity.parity("cpu", 1))
    assert [row for row in rows if not row["ok"]] == []


@pytest.mark.gpu
def test_gpu_implementations_equal_their_references() -> None:
    sms = torch.cuda.get_device_properties(0).multi_processor_count
    for lane_sms in (8, sms):
        rows = list(kernel_parity.parity("cuda", lane_sms))
        assert [row for row in rows if not row["ok"]] == []
