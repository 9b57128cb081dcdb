"""From options that may say auto to a core's configuration, on imagined machines."""

from __future__ import annotations

import pytest

from drift_engine.core import resolving
from drift_engine.core.resolving import Machine
from drift_engine.errors import CapacityError, OptionsError
from drift_engine.options import NodeOptions

GIB = 1024**3
LAPTOP = Machine(cores=8, cuda=False, free_bytes=16 * GIB)


def config(
    machine: Machine = LAPTOP, *, context: int = 4096, page_bytes: int = 1 << 20, **options: object
) -> resolving.CoreConfig:
    return resolving.resolve(
        NodeOptions(model="m", **options),  # type: ignore[arg-type]
        machine,
        context_tokens=context,
        bytes_per_page=page_bytes,
    )


def test_a_cpu_node_holds_two_full_contexts_when_memory_allows() -> None:
    assert config().kv_pages == 2 * 4096 // 16


def test_a_small_machine_gives_a_quarter_of_its_memory() -> None:
    assert config(Machine(2, cuda=False, free_bytes=GIB)).kv_pages == 256


def test_the_context_shrinks_to_what_the_cache_holds() -> None:
    assert config(kv_bytes=10 << 20).max_model_len_tokens == 160


def test_a_cache_of_nothing_is_refused_with_the_numbers() -> None:
    with pytest.raises(CapacityError, match="kv_bytes: 1000 bytes hold 0 pages of 16 tokens"):
        config(kv_bytes=1000)


def test_threads_follow_the_cores_unless_told() -> None:
    assert config().threads == 8
    assert config(threads=3).threads == 3


def test_cuda_without_a_gpu_is_refused() -> None:
    with pytest.raises(OptionsError, match="no NVIDIA GPU"):
        resolving.device_of(NodeOptions(model="m", device="cuda"), cuda=False)


@pytest.mark.parametrize(("cuda", "device", "dtype"), [(False, "cpu", "float32"), (True, "cuda", "bfloat16")])
def test_auto_takes_the_gpu_where_there_is_one(cuda: bool, device: str, dtype: str) -> None:
    options = NodeOptions(model="m")
    assert resolving.device_of(options, cuda=cuda) == device
    assert resolving.dtype_of(options, device) == dtype


def test_a_context_beyond_the_model_is_refused_with_both_numbers() -> None:
    with pytest.raises(OptionsError, match="9000 is above the model's longest context, 4096"):
        resolving.context_of(NodeOptions(model="m", max_model_len_tokens=9000), 4096)
