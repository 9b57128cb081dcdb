"""Step `foreign`: transformers' continuous batching with the 8B shape, the requests of step `serving` at once.

A baseline that shares no code with Drift beyond torch: what `serving` says of Drift, said of another engine.
"""

from __future__ import annotations

import itertools
import random
import statistics
import time
from typing import Any

import torch
import transformers
from benchmarks.gpu.reports import Report
from benchmarks.gpu.serving import REQUESTS
from benchmarks.gpu.setups import Setup


def run(report: Report, *, dry_run: bool) -> None:
    setup = Setup(dry_run)
    report.set("transformers", transformers.__version__)
    model = _model(setup)
    prompt_tokens, new_tokens, count = (20, 4, 2) if dry_run else (512, 128, REQUESTS)
    asked = transformers.GenerationConfig(
        max_new_tokens=new_tokens, do_sample=False, eos_token_id=-1, pad_token_id=0
    )
    options: dict[str, Any] = {}
    if dry_run:  # by itself it takes most of the memory
        options["continuous_batching_config"] = transformers.ContinuousBatchingConfig(
            num_blocks=16, max_batch_tokens=64
        )
    numbers = random.Random(0)
    start_s = time.perf_counter()
    with model.continuous_batching_context_manager(generation_config=asked, timeout=5, **options) as manager:
        report.set("start_s", time.perf_counter() - start_s)
        for name in ("first", "second"):  # the first compiles and captures what the start has not
            prompts = [numbers.choices(range(setup.config.vocab_size), k=prompt_tokens) for _ in range(count)]
            report.add("foreign", {"run": name} | _batch(manager, prompts, new_tokens, report.left_s() - 10))


def _model(setup: Setup) -> Any:
    config = setup.config
    dtype = torch.float32 if setup.dry_run else torch.bfloat16
    asked = transformers.LlamaConfig(
        num_hidden_layers=config.num_layers,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        vocab_size=config.vocab_size,
        max_position_embeddings=config.max_positions,
        attn_implementation="sdpa",
        dtype=dtype,
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(setup.device):
            return transformers.LlamaForCausalLM(asked).eval()
    finally:
        torch.set_default_dtype(before)


def _batch(manager: Any, prompts: list[list[int]], new_tokens: int, limit_s: float) -> dict[str, Any]:
    """All prompts at once."""
    start_s = time.perf_counter()
    manager.add_requests(inputs=prompts, max_new_tokens=new_tokens, record_timestamps=True)
    times: list[list[float]] = []
    while len(times) < len(prompts):
        if time.perf_counter() - start_s > limit_s:
            raise TimeoutError(f"{len(prompts) - len(times)} requests did not end within {limit_s:.0f} s")
        answer = manager.get_result(timeout=1)
        if answer is not None and answer.is_finished():
            assert answer.error is None, answer.error
            times.append(answer.timestamps)
    seconds = max(some[-1] for some in times) - start_s
    gaps_s = [later - earlier for some in times for earlier, later in itertools.pairwise(some)]
    tokens = sum(map(len, times))
    return {
        "requests": len(prompts),
        "prompt_tokens": len(prompts[0]),
        "new_tokens": new_tokens,
        "ok": tokens == new_tokens * len(prompts),
        "seconds": seconds,
        "new_tokens_per_s": tokens / seconds,
        "ttft_ms_mean": 1e3 * statistics.mean(some[0] - start_s for some in times),
        "tbt_ms_p50": 1e3 * statistics.median(gaps_s),
    }
