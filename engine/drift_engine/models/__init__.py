"""Language models: from a Hugging Face folder to logits.

config -> registry (one small module per family) -> loading -> transformer, which calls `drift_kernels`. Reading a
configuration needs no torch, so torch is imported where a model is made.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from drift_engine.models.config import ModelConfig
from drift_engine.models.config import read as read_config

if TYPE_CHECKING:
    import torch

    from drift_engine.models.loading import Progress
    from drift_engine.models.transformer import Transformer

__all__ = ["ModelConfig", "load", "random", "read_config"]


def load(
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    progress: Progress | None = None,
    *,
    max_context_tokens: int | None = None,
) -> Transformer:
    """See `loading.load`."""
    from drift_engine.models import loading

    return loading.load(folder, device, dtype, progress, max_context_tokens=max_context_tokens)


def random(
    config: ModelConfig,
    device: torch.device,
    dtype: torch.dtype,
    *,
    seed: int = 0,
    max_context_tokens: int | None = None,
) -> Transformer:
    """See `loading.random`."""
    from drift_engine.models import loading

    return loading.random(config, device, dtype, seed=seed, max_context_tokens=max_context_tokens)
