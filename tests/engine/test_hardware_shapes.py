"""Shapes of models: known magnitudes, tensor parallelism, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from drift_engine.errors import CapacityError, ModelError, OptionsError
from drift_engine.hardware import named, shapes
from drift_engine.models import read_config

PARAMETERS = {"llama-120m": 117e6, "llama-8b": 8.03e9, "llama-34b": 33.7e9, "llama-70b": 70.6e9}


def config(**changes: object) -> dict[str, object]:
    document = json.loads((shapes.FOLDER / "llama-120m" / "config.json").read_text())
    return {**document, **changes}


def test_the_shipped_shapes_are_the_published_ones() -> None:
    assert set(shapes.names()) == set(PARAMETERS)
    for name, parameters in PARAMETERS.items():
        assert shapes.read(name).weight_bytes == pytest.approx(2 * parameters, rel=0.01)


@pytest.mark.parametrize("name", PARAMETERS)
def test_weights_are_counted_as_the_decoder_counts_them(name: str) -> None:
    assert shapes.read(name).weight_bytes == 2 * read_config(shapes.FOLDER / name).num_parameters


def test_kv_of_the_8b_model() -> None:
    shape = shapes.read("llama-8b")
    assert shape.kv_bytes_per_token == 128 * 1024
    # (0.9 * 141 GB - 16.06 GB) / 128 KiB
    assert shape.kv_tokens(named("h200")) == pytest.approx(845_000, rel=0.01)
    assert shape.kv_tokens(named("h200"), share=0.5) < shape.kv_tokens(named("h200"))


@pytest.mark.parametrize("gpus", [2, 4, 8])
def test_gpus_share_weights_and_kv(gpus: int) -> None:
    alone, shared = shapes.read("llama-70b"), shapes.read("llama-70b", gpus)
    assert shared.weight_bytes == pytest.approx(alone.weight_bytes / gpus, rel=0.001)
    assert shared.kv_bytes_per_token == alone.kv_bytes_per_token // gpus


def test_kv_heads_are_copied_where_there_are_more_gpus() -> None:
    assert shapes.read("llama-8b", 16).kv_bytes_per_token == shapes.read("llama-8b", 8).kv_bytes_per_token


def test_weights_that_leave_no_room_are_refused() -> None:
    with pytest.raises(CapacityError, match=r"llama-70b: 141\.1 GB .* each of 1 h200 .* 126\.9 GB"):
        shapes.read("llama-70b").kv_tokens(named("h200"))


def test_reads_any_folder_or_file(tmp_path: Path) -> None:
    document = config(hidden_size=512, num_attention_heads=8, num_key_value_heads=4)
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(document))
    (tmp_path / "other.json").write_text(json.dumps(document))
    from_folder, from_file = shapes.read(str(folder)), shapes.read(str(folder / "config.json"))
    assert from_folder == from_file
    assert (from_folder.name, from_folder.hidden_size, from_folder.num_kv_heads) == ("mine", 512, 4)
    assert shapes.read(str(tmp_path / "other.json")).name == "other"


def test_an_unknown_model_lists_the_known_shapes() -> None:
    with pytest.raises(
        ModelError, match=r"model: 'llama-9b' .* known: llama-120m, llama-34b, llama-70b, llama-8b"
    ):
        shapes.read("llama-9b")


def test_an_unsupported_architecture_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config(architectures=["MambaForCausalLM"])))
    with pytest.raises(ModelError, match=r"config\.json: architectures: 'MambaForCausalLM' is not supported"):
        shapes.read(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "gpus", "message"),
    [
        ("llama-8b", 0, "gpus: 0 is below the minimum 1"),
        ("llama-8b", 3, "gpus: 3 does not divide llama-8b's 32 heads and 14336 intermediate values"),
    ],
)
def test_gpus_that_do_not_divide_the_model(name: str, gpus: int, message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        shapes.read(name, gpus)


def test_gpus_that_do_not_divide_the_kv_heads(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config(num_attention_heads=12, num_key_value_heads=3)))
    with pytest.raises(OptionsError, match=r"gpus: 2 neither divides .* 3 KV heads nor is a multiple"):
        shapes.read(str(path), 2)
