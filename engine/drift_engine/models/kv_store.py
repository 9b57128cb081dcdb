"""The paged KV store: a tensor of keys and one of values per layer. `drift_engine.cache` decides who owns a page."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from drift_engine.errors import CapacityError
from drift_engine.models.config import ModelConfig

# P pages, K kv heads, S slots (tokens) per page, H head dim


@dataclass(frozen=True)
class KvStore:
    """Page p of layer l is `key[l][p]` and `value[l][p]`, each [K, S, H]. Zero at first: masked reads are finite."""

    key: tuple[torch.Tensor, ...]
    value: tuple[torch.Tensor, ...]
    page_tokens: int

    @staticmethod
    def bytes_per_page(config: ModelConfig, page_tokens: int, dtype: torch.dtype) -> int:
        """Of all layers, keys and values."""
        return 2 * config.num_layers * page_tokens * config.kv_size * dtype.itemsize

    @classmethod
    def allocate(
        cls, config: ModelConfig, pages: int, page_tokens: int, device: torch.device, dtype: torch.dtype
    ) -> KvStore:
        """Raises CapacityError where the memory is not there."""
        assert pages >= 1, pages
        assert page_tokens >= 1, page_tokens
        shape_PKSH = (pages, config.num_kv_heads, page_tokens, config.head_dim)
        try:
            tensors = [
                torch.zeros(shape_PKSH, device=device, dtype=dtype) for _ in range(2 * config.num_layers)
            ]
        except RuntimeError as error:  # torch's out-of-memory errors, of the host and of CUDA
            total_bytes = pages * cls.bytes_per_page(config, page_tokens, dtype)
            raise CapacityError(
                f"kv_bytes: {total_bytes} bytes for {pages} pages of {page_tokens} tokens can't be allocated "
                f"on {device}; ask for less"
            ) from error
        return cls(tuple(tensors[: config.num_layers]), tuple(tensors[config.num_layers :]), page_tokens)

    @property
    def pages(self) -> int:
        return self.key[0].shape[0]
