"""Loading weights: files, progress, conversion, and each way in which a checkpoint can be broken."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import random_checkpoints
from drift_engine import models
from drift_engine.errors import CapacityError, ModelError
from drift_engine.models import config, loading, scalings, weights
from drift_engine.models.kv_store import KvStore
from drift_engine.models.transformer import Transformer

CPU = torch.device("cpu")
Change = Callable[[dict[str, torch.Tensor]], None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return random_checkpoints.write(tmp_path / "model", "qwen2")


def _tensors(model: Transformer) -> dict[str, torch.Tensor]:
    """As the checkpoint names them."""

    def plain(layer: weights.LayerWeights) -> weights.LayerWeights:
        dense: dict[str, Any] = {k: None if t is None else t.to_dense() for k, t in vars(layer).items()}
        return weights.LayerWeights(**dense)

    head = model.weights.head_VE.to_dense()
    layers = [plain(layer) for layer in model.weights.layers]
    return dict(weights.views(model.config, dataclasses.replace(model.weights, layers=layers, head_VE=head)))


def _same(first: Transformer, second: Transformer) -> bool:
    ours, theirs = _tensors(first), _tensors(second)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def _refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        models.load(folder, CPU, torch.float32)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_progress_counts_every_byte_once(folder: Path) -> None:
    reports: list[tuple[int, int]] = []
    model = models.load(folder, CPU, torch.float32, lambda done, total: reports.append((done, total)))
    size = model.config.num_parameters * 4
    assert reports[-1] == (size, size)
    assert [done for done, _ in reports] == sorted({done for done, _ in reports})
    assert len(reports) == len(_tensors(model))


def test_shards_hold_the_same_model(folder: Path, tmp_path: Path) -> None:
    sharded = random_checkpoints.write(tmp_path / "sharded", "qwen2", shard_bytes=100_000)
    assert len(list(sharded.glob("*.safetensors"))) > 2
    assert _same(models.load(sharded, CPU, torch.float32), models.load(folder, CPU, torch.float32))


def test_bfloat16_becomes_float32_exactly(tmp_path: Path) -> None:
    folder = random_checkpoints.write(tmp_path, "llama", dtype="bfloat16")
    assert models.read_config(folder).dtype == "bfloat16"
    model = models.load(folder, CPU, torch.float32)
    for name, tensor in load_file(folder / "model.safetensors").items():
        assert torch.equal(_tensors(model)[name], tensor.float()), name


def test_tied_embeddings_are_one_matrix(tmp_path: Path) -> None:
    folder = random_checkpoints.write(tmp_path, "llama", tie_word_embeddings=True)
    model = models.load(folder, CPU, torch.float32)
    assert torch.equal(model.weights.head_VE.to_dense(), model.weights.embedding_VE)
    _edit(folder, lambda tensors: tensors.update({"lm_head.weight": torch.zeros(1)}))  # ignored, as elsewhere
    assert _same(models.load(folder, CPU, torch.float32), model)


def test_random_weights_are_the_same_for_a_seed() -> None:
    shape = config.ModelConfig(
        architecture="LlamaForCausalLM",
        num_layers=2,
        hidden_size=32,
        intermediate_size=48,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        vocab_size=50,
        max_positions=64,
        rope=scalings.Rope(10_000.0),
    )
    first, again, other = (models.random(shape, CPU, torch.float32, seed=seed) for seed in (1, 1, 2))
    assert _same(first, again)
    assert not _same(first, other)
    assert first.max_context_tokens == 64


def test_the_context_is_bounded_by_the_model(folder: Path) -> None:
    assert models.load(folder, CPU, torch.float32).max_context_tokens == 512
    assert models.load(folder, CPU, torch.float32, max_context_tokens=100).max_context_tokens == 100
    with pytest.raises(ModelError, match="513 is above the model's maximum 512"):
        models.load(folder, CPU, torch.float32, max_context_tokens=513)


def _edit(folder: Path, change: Change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda t: t.pop("model.norm.weight"), "tensor model.norm.weight is missing"),
        (
            lambda t: [t.pop(f"model.layers.1.self_attn.{p}_proj.bias") for p in "qkv"],
            "tensor model.layers.1.self_attn.q_proj.bias and 2 more is missing",
        ),
        (
            lambda t: t.update({"model.layers.0.mlp.up_proj.weight": torch.zeros(96, 63)}),
            "tensor model.layers.0.mlp.up_proj.weight has shape (96, 63), but config.json asks for (96, 64)",
        ),
        (
            lambda t: t.update({"model.norm.weight": torch.zeros(64, dtype=torch.int8)}),
            "tensor model.norm.weight has dtype I8; supported: F32, F16, BF16",
        ),
        (
            lambda t: t.update({"model.layers.0.self_attn.o_proj.bias": torch.zeros(64)}),
            "o_proj.bias is not part of Qwen2ForCausalLM as config.json describes it",
        ),
    ],
)
def test_a_wrong_tensor_is_named(folder: Path, change: Change, expected: str) -> None:
    _edit(folder, change)
    assert expected in _refusal(folder)


def test_old_rotary_buffers_are_ignored(folder: Path) -> None:
    _edit(folder, lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(8)}))
    models.load(folder, CPU, torch.float32)


@pytest.mark.parametrize("kept", [0, 4, 300, -1])
def test_a_truncated_file_is_named(folder: Path, kept: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    message = _refusal(folder)
    assert f"{path}: truncated or corrupt" in message
    assert "download it again" in message


def test_a_damaged_header_is_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[8:20] = b"\xff" * 12
    path.write_bytes(content)
    assert "truncated or corrupt" in _refusal(folder)


def test_missing_files_are_named(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "no model.safetensors and no model.safetensors.index.json; pytorch_model.bin is not" in _refusal(
        folder
    )
    sharded = random_checkpoints.write(tmp_path / "sharded", "qwen2", shard_bytes=100_000)
    lost = max(sharded.glob("*.safetensors"))
    lost.unlink()
    assert f"{lost}: is missing, but model.safetensors.index.json names it" in _refusal(sharded)


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        ({}, "weight_map: is missing or empty"),
        ({"weight_map": {"a": "../secrets"}}, "weight_map: '../secrets' is not a plain file name"),
    ],
)
def test_a_wrong_index_is_named(folder: Path, index: object, expected: str) -> None:
    (folder / loading.INDEX_FILE).write_text(json.dumps(index))
    assert expected in _refusal(folder)


def test_a_tensor_in_two_files_is_named(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({"model.norm.weight": tensors["model.norm.weight"]}, folder / "other.safetensors")
    weight_map = dict.fromkeys(tensors, "model.safetensors") | {"x": "other.safetensors"}
    (folder / loading.INDEX_FILE).write_text(json.dumps({"weight_map": weight_map}))
    assert "other.safetensors: tensor model.norm.weight is in two files" in _refusal(folder)


def test_a_kv_store_has_the_bytes_it_says(folder: Path) -> None:
    shape = models.read_config(folder)
    store = KvStore.allocate(shape, 5, 16, CPU, torch.bfloat16)
    held = sum(tensor.nbytes for tensor in (*store.key, *store.value))
    assert held == 5 * KvStore.bytes_per_page(shape, 16, torch.bfloat16)
    assert store.pages == 5
    assert all(not tensor.any() for tensor in (*store.key, *store.value))


def test_a_kv_store_beyond_the_memory_is_refused(folder: Path) -> None:
    with pytest.raises(
        CapacityError, match=r"kv_bytes: \d+ bytes for \d+ pages of 16 tokens can't be allocated on cpu"
    ):
        KvStore.allocate(models.read_config(folder), 1 << 40, 16, CPU, torch.float32)
