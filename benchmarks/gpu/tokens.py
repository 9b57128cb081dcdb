"""Step `tokens`: the GPU computes what the CPU computes.

Small random models with equal weights answer the same requests on the CPU and on the GPU in float32, chunked, with
reused prefixes, greedy and seeded, eager and through graphs, on one lane and on those of splits: the tokens must be
equal. In bfloat16 the logits of one
prompt must be as near to the exact ones as the CPU's are.
"""

from __future__ import annotations

import random
from dataclasses import replace

import torch
from benchmarks.gpu import setups
from benchmarks.gpu.cores import LocalCore
from benchmarks.gpu.reports import Report

from drift_engine import models, wire
from drift_engine.clock import MonotonicClock
from drift_engine.devices import packing, sharing
from drift_engine.devices.base import Device, Draw, Pass, Row
from drift_engine.devices.cpu import CpuDevice
from drift_engine.models import weights
from drift_engine.models.config import ModelConfig
from drift_engine.models.transformer import Transformer

LLAMA = replace(
    setups.TINY, num_layers=3, hidden_size=256, intermediate_size=640, head_dim=64, vocab_size=2000
)
SHAPES: dict[str, ModelConfig] = {
    "llama, 2 heads per kv head": LLAMA,
    "qwen3, head norms, 8 heads per kv head": replace(
        LLAMA, architecture="Qwen3ForCausalLM", num_heads=8, num_kv_heads=1, head_dim=128, qk_norm=True
    ),
    "qwen2, biases, 7 heads per kv head": replace(
        LLAMA, architecture="Qwen2ForCausalLM", num_heads=14, num_kv_heads=2, qkv_bias=True
    ),
}

WEIGHT_SCALE = 5.0
"""On the usual 0.02: tiny models' greedy text then varies, so that a wrong rotation or bias shows."""

MAX_BF16_RATIO = 1.5
"""Between the logits' errors in bfloat16 on the GPU and on the CPU (1 to 4 % here, the scaled weights amplify each
rounding): both round at the same places, so that only the luck of the roundings may differ."""

PAGES = 160

WAYS: tuple[tuple[str, sharing.Share, bool], ...] = (
    ("eager", sharing.alone, False),
    ("graphs", sharing.alone, True),
    ("split", sharing.best, True),
    ("overlap", sharing.overlapping, True),
)
"""Name, how the device is shared, and whether decode runs as graphs."""

MODES: dict[sharing.Share, wire.Mode] = {
    sharing.alone: wire.Mode.FUSED,
    sharing.overlapping: wire.Mode.OVERLAP,
}
"""Those of the other ways share in space."""

STEPS_BETWEEN = 3
"""Turns of the core's loop between two requests: some decode while others are prefilled."""


def run(report: Report, *, dry_run: bool) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cpu" if dry_run else "cuda")
    torch.backends.cuda.matmul.allow_tf32 = False
    for name, config in list(SHAPES.items())[: 1 if dry_run else None]:
        model = models.random(config, cpu, torch.float32)
        for key, view in weights.views(config, model.weights):
            if not key.endswith("norm.weight"):
                view.mul_(WEIGHT_SCALE)
        new_tokens = 4 if dry_run else 24
        expected = _answers(model, new_tokens, on_cpu=True)
        for way, share, graphs in WAYS:
            copied = _copied(model, gpu, torch.float32)
            found = _answers(copied, new_tokens, on_cpu=False, share=share, graphs=graphs)
            wrong = sorted(request for request in expected if found[request] != expected[request])
            report.add("float32", {"shape": name, "way": way, "ok": not wrong, "wrong": wrong})
        rounded = _copied(model, cpu, torch.bfloat16)
        exact = _logits(_copied(rounded, cpu, torch.float32))
        cpu_error, error = (
            float((_logits(_copied(rounded, device, torch.bfloat16)) - exact).norm() / exact.norm())
            for device in (cpu, gpu)
        )
        row = {"shape": name, "error": error, "cpu_error": cpu_error}
        report.add("bfloat16", row | {"ok": error <= MAX_BF16_RATIO * cpu_error})


def _copied(model: Transformer, device: torch.device, dtype: torch.dtype) -> Transformer:
    copies = weights.allocate(model.config, device, dtype)
    pairs = zip(weights.views(model.config, copies), weights.views(model.config, model.weights), strict=True)
    for (_, copy), (_, original) in pairs:
        copy.copy_(original)
    return Transformer(model.config, copies, max_context_tokens=model.max_context_tokens)


def _answers(
    model: Transformer,
    new_tokens: int,
    *,
    on_cpu: bool,
    share: sharing.Share = sharing.alone,
    graphs: bool = True,
) -> dict[str, list[int]]:
    """Of greedy and seeded requests; the second batch finds its prompts' beginning cached."""
    runner = setups.filled_runner(model, PAGES)
    if on_cpu:
        device: Device = CpuDevice(runner, MonotonicClock(), threads=torch.get_num_threads())
    else:
        device = setups.open_device(runner, share, max_running=16, graphs=graphs)
    mode = MODES.get(share, wire.Mode.MUX) if device.splits else wire.Mode.FUSED
    core = LocalCore(runner, device, max_running=16, chunk_tokens=48, mode=mode)
    answers: dict[str, list[int]] = {}
    numbers = random.Random(1)
    stem = numbers.choices(range(model.config.vocab_size), k=70)
    for batch in range(2):
        requests = {}
        for index in range(8):
            prompt = stem + numbers.choices(range(model.config.vocab_size), k=5 + 9 * index)
            seeded = {"temperature": 0.8, "top_p": 0.95, "presence_penalty": 0.3, "seed": index}
            sampling = {"temperature": 0.0} if index % 2 else seeded
            requests[f"{batch}-{index}"] = prompt, wire.Sampling(max_tokens=new_tokens, **sampling)  # type: ignore[arg-type]
        answers |= core.run(requests, steps_between=STEPS_BETWEEN)
    device.close()
    return answers


def _logits(model: Transformer) -> torch.Tensor:
    """Of the last token of a prompt, float32 on the CPU."""
    runner = setups.filled_runner(model, PAGES)
    prompt = random.Random(2).choices(range(model.config.vocab_size), k=300)
    draw = Draw(wire.Sampling(max_tokens=1), prompt, len(prompt))
    packed = runner.pack(Pass((), (Row("r", prompt, 0, list(range(PAGES))[:19], draw),)))
    device = model.device
    inputs = packing.forward_inputs(packed, lambda values: torch.from_numpy(values).to(device))
    rows_B = torch.from_numpy(packed.drawing_D).to(device)
    sms = 1 if device.type == "cpu" else int(torch.cuda.get_device_properties(device).multi_processor_count)
    logits_BV = runner.forward(inputs, rows_B, lane_sms=sms)
    assert logits_BV is not None
    return logits_BV.cpu()
