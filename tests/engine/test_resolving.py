"""From options that may say auto to a core's configuration, on imagined machines."""

from __future__ import annotations

import pytest

from drift_engine.core import resolving
from drift_engine.core.resolving import Machine
from drift_engine.errors import CapacityError, OptionsError
from drift_engine.options import NodeOptions, Share

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


def test_a_node_beside_others_takes_its_share() -> None:
    tight = Machine(8, cuda=False, free_bytes=GIB)
    shared = config(tight, share=Share(place=1, of=4))
    assert (shared.threads, shared.kv_pages) == (2, config(tight).kv_pages // 4)
    assert config(share=Share(of=16)).threads == 1
    assert config(share=Share(of=4), threads=5).threads == 5


@pytest.mark.parametrize(
    ("of", "cores"),
    [
        (1, [[0, 1, 2, 3, 4]]),
        (2, [[0, 1], [2, 3]]),
        (5, [[0], [1], [2], [3], [4]]),
        (7, [[0], [1], [2], [3], [4], [0], [1]]),
    ],
)
def test_nodes_have_cores_of_their_own_where_there_are_enough(of: int, cores: list[list[int]]) -> None:
    assert [list(resolving.own_cores(Share(place, of), range(5))) for place in range(of)] == cores
