"""Fills a decoder's weights from a folder's safetensors files, or at random for benchmarks.

Each file is memory-mapped and every tensor copied straight to its place in the packed weights (converted on the
way), so the peak of private memory is the model itself. Nothing is served before every tensor has arrived.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from drift_engine.errors import CapacityError, ModelError
from drift_engine.models import config as configs
from drift_engine.models import weights as packing
from drift_engine.models.config import ModelConfig
from drift_engine.models.fields import Fields, read_json
from drift_engine.models.transformer import Transformer
from drift_engine.models.weights import Weights

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all) after each tensor; bytes are those of the weights in memory."""

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

_FILE_DTYPES = ("F32", "F16", "BF16")
_IGNORED_SUFFIX = ".rotary_emb.inv_freq"  # old Llama checkpoints carry the table's frequencies
_RANDOM_STD = 0.02  # the families' initializer_range: activations and logits stay finite in every dtype


def load(
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    progress: Progress | None = None,
    *,
    max_context_tokens: int | None = None,
) -> Transformer:
    """Opens a Hugging Face model folder.

    `max_context_tokens` None serves as long a context as the model can. Raises ModelError for a checkpoint that
    can't be used and CapacityError where the weights do not fit.
    """
    config = configs.read(folder)
    context_tokens = config.longest_context_tokens if max_context_tokens is None else max_context_tokens
    config.check_context(context_tokens)
    files = weight_files(folder)
    weights = _allocate(config, device, dtype)
    _fill(config, weights, files, progress or (lambda done, total: None))
    return Transformer(config, packing.prepare(weights), max_context_tokens=context_tokens)


def random(
    config: ModelConfig,
    device: torch.device,
    dtype: torch.dtype,
    *,
    seed: int = 0,
    max_context_tokens: int | None = None,
) -> Transformer:
    """A model of this shape with random weights, the same for the same seed, device and dtype.

    Its matrices are plain, not prepared for the device's products: benchmarks scale and copy them.
    """
    weights = _allocate(config, device, dtype)
    generator = torch.Generator(device).manual_seed(seed)
    for name, view in packing.views(config, weights):
        if name.endswith("norm.weight"):
            view.fill_(1.0)
        else:
            view.normal_(0.0, _RANDOM_STD, generator=generator)
    context_tokens = config.longest_context_tokens if max_context_tokens is None else max_context_tokens
    return Transformer(config, weights, max_context_tokens=context_tokens)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder. Raises ModelError naming the one that is missing."""
    index = folder / INDEX_FILE
    if not index.is_file():
        single = folder / SINGLE_FILE
        if single.is_file():
            return [single]
        others = sorted(path.name for path in folder.glob("*.bin"))
        found = f"; {others[0]} is not a safetensors file" if others else ""
        raise ModelError(f"{folder}: no {SINGLE_FILE} and no {INDEX_FILE}{found}")
    weight_map = Fields(str(index), read_json(index)).section("weight_map")
    if weight_map is None or not weight_map.values:
        raise ModelError(f"{index}: weight_map: is missing or empty")
    names = sorted({str(name) for name in weight_map.values.values()})
    for name in names:
        if Path(name).name != name:
            raise ModelError(f"{index}: weight_map: {name!r} is not a plain file name")
        if not (folder / name).is_file():
            raise ModelError(
                f"{folder / name}: is missing, but {INDEX_FILE} names it; download the model again"
            )
    return [folder / name for name in names]


def _allocate(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> Weights:
    try:
        return packing.allocate(config, device, dtype)
    except RuntimeError as error:  # torch's out-of-memory errors, of the host and of CUDA
        needed_bytes = config.num_parameters * dtype.itemsize
        raise CapacityError(
            f"the model's {config.num_parameters} parameters need {needed_bytes} bytes as {dtype}, "
            f"which {device} does not have"
        ) from error


def _fill(config: ModelConfig, weights: Weights, files: list[Path], progress: Progress) -> None:
    missing = dict(packing.views(config, weights))
    expected = frozenset(missing)
    total_bytes = sum(view.nbytes for view in missing.values())
    done_bytes = 0
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.offset_keys():
                    if name not in expected:
                        _check_ignorable(config, path, name)
                        continue
                    if name not in missing:
                        raise ModelError(f"{path}: tensor {name} is in two files")
                    view = missing.pop(name)
                    _copy(path, name, file, view)
                    done_bytes += view.nbytes
                    progress(done_bytes, total_bytes)
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{path}: truncated or corrupt ({error}); download it again") from error
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelError(f"{files[0].parent}: tensor {next(iter(missing))}{more} is missing from the weights")


def _copy(path: Path, name: str, file: Any, view: torch.Tensor) -> None:
    header = file.get_slice(name)
    if header.get_dtype() not in _FILE_DTYPES:
        raise ModelError(
            f"{path}: tensor {name} has dtype {header.get_dtype()}; supported: {', '.join(_FILE_DTYPES)}"
        )
    shape = tuple(header.get_shape())
    if shape != tuple(view.shape):
        raise ModelError(
            f"{path}: tensor {name} has shape {shape}, but config.json asks for {tuple(view.shape)}"
        )
    view.copy_(file.get_tensor(name))


def _check_ignorable(config: ModelConfig, path: Path, name: str) -> None:
    """A tensor that we would leave out must be one that changes nothing."""
    tied_head = config.tie_word_embeddings and name == "lm_head.weight"
    if not tied_head and not name.endswith(_IGNORED_SUFFIX):
        raise ModelError(
            f"{path}: tensor {name} is not part of {config.architecture} as config.json describes it"
        )
