"""The model, KV store and device that the engine's steps measure: an 8B Llama on a GPU, a tiny one in a dry run."""

from __future__ import annotations

from dataclasses import dataclass

import torch

import host_streams
from drift_engine import models
from drift_engine.clock import MonotonicClock
from drift_engine.devices import cuda, sharing
from drift_engine.devices.cuda import CudaDevice
from drift_engine.devices.runner import Runner
from drift_engine.devices.sharing import Share, Streams
from drift_engine.devices.streams import CudaStreams
from drift_engine.models.config import ModelConfig
from drift_engine.models.kv_store import KvStore
from drift_engine.models.scalings import Rope
from drift_engine.models.transformer import Transformer
from fake_gpu_driver import FakeDriver

LLAMA_8B = ModelConfig(
    architecture="LlamaForCausalLM",
    num_layers=32,
    hidden_size=4096,
    intermediate_size=14336,
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
    vocab_size=128256,
    max_positions=32768,
    rope=Rope(500_000.0),
    rms_norm_eps=1e-5,
)
TINY = ModelConfig(
    architecture="LlamaForCausalLM",
    num_layers=2,
    hidden_size=64,
    intermediate_size=96,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    vocab_size=300,
    max_positions=512,
    rope=Rope(10_000.0),
)
PAGE_TOKENS = 16

SPARE_BYTES = 6 << 30
"""For activations of 8,192 tokens (1.4 GB), logits, graphs and the allocator's slack. Estimate, not yet measured."""

MAX_KV_TOKENS = 64 * 8192 + 128
"""Of the largest case, and a bit: filling more with random numbers takes time."""


@dataclass(frozen=True)
class Setup:
    """`dry_run` stands in for a GPU with the CPU's kernels behind the CUDA device's own lanes."""

    dry_run: bool

    @property
    def device(self) -> torch.device:
        return torch.device("cpu" if self.dry_run else "cuda")

    @property
    def config(self) -> ModelConfig:
        return TINY if self.dry_run else LLAMA_8B

    def streams(self) -> Streams:
        if self.dry_run:
            return host_streams.HostStreams(host_streams.HostGpu(), FakeDriver(4, 1))
        return CudaStreams(self.device)

    def runner(self) -> Runner:
        """Random weights and KV pages full of random numbers."""
        dtype = torch.float32 if self.dry_run else torch.bfloat16
        model = models.random(self.config, self.device, dtype)
        return filled_runner(model, self._pages(dtype))

    def _pages(self, dtype: torch.dtype) -> int:
        if self.dry_run:
            return 256
        free_bytes, _ = torch.cuda.mem_get_info()
        fitting = (free_bytes - SPARE_BYTES) // KvStore.bytes_per_page(self.config, PAGE_TOKENS, dtype)
        return min(fitting, MAX_KV_TOKENS // PAGE_TOKENS)

    def open(
        self,
        runner: Runner,
        share: Share = sharing.alone,
        *,
        max_running: int,
        graphs: bool = True,
    ) -> CudaDevice:
        """By default one lane over the whole device."""
        return open_device(runner, share, max_running=max_running, graphs=graphs)


def filled_runner(model: Transformer, pages: int) -> Runner:
    kv = KvStore.allocate(model.config, pages, PAGE_TOKENS, model.device, model.dtype)
    for tensor in (*kv.key, *kv.value):
        tensor.normal_()
    return Runner(model, kv, MonotonicClock(), max_requests=256)


def open_device(
    runner: Runner,
    share: Share = sharing.alone,
    *,
    max_running: int,
    graphs: bool = True,
) -> CudaDevice:
    opened = host_streams.open_device if runner.model.device.type == "cpu" else cuda.open_device
    context = min(runner.model.max_context_tokens, runner.kv.pages * runner.kv.page_tokens)
    return opened(
        runner, MonotonicClock(), share, max_running=max_running, max_context_tokens=context, graphs=graphs
    )
