"""Logits and greedy text against transformers, and one result whatever the path, on random weights in float32."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import paged_runs
import random_checkpoints
from drift_engine import models

ROPES: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default", "rope_theta": 500.0},
    "linear": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
        "rope_theta": 10000.0,
    },
    "yarn": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 64,
        "rope_theta": 10000.0,
    },
    "yarn-tuned": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 64,
        "rope_theta": 10000.0,
        "beta_fast": 16.0,
        "beta_slow": 2.0,
        "mscale": 0.7,
        "mscale_all_dim": 1.2,
        "truncate": False,
    },
}

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    **{family: (family, {}) for family in random_checkpoints.FAMILIES},
    **{f"llama-{name}": ("llama", {"rope_parameters": rope}) for name, rope in ROPES.items()},
    "qwen2-yarn": ("qwen2", {"rope_parameters": ROPES["yarn"]}),
    "llama-tied-biased": ("llama", {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    "qwen2-tied": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3-biased-one-kv-head": ("qwen3", {"attention_bias": True, "num_key_value_heads": 1}),
    "qwen3-all-kv-heads": ("qwen3", {"num_key_value_heads": 4, "head_dim": 32}),
    "mistral-wide-window": ("mistral", {"sliding_window": 512}),
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _prompt(length: int, seed: int = 0) -> list[int]:
    return torch.randint(0, 256, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.mark.parametrize("name", SHAPES)
def test_logits_and_greedy_text_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    family, overrides = SHAPES[name]
    theirs = random_checkpoints.build(family, **overrides)
    random_checkpoints.write(tmp_path, family, **overrides)
    ours = models.load(tmp_path, torch.device("cpu"), torch.float32)
    prompt = _prompt(150)
    with torch.inference_mode():
        expected = theirs(torch.tensor([prompt])).logits[0]
    run = paged_runs.PagedRun(ours)
    torch.testing.assert_close(run.prefill(0, prompt), expected, atol=2e-4, rtol=2e-4)

    generated = theirs.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt)),
        max_new_tokens=64,
        min_new_tokens=64,
        do_sample=False,
        pad_token_id=0,
    )
    logits, text = run.last_logits(0), []
    blocked = list(ours.config.eos_token_ids)
    for _ in range(64):
        logits[blocked] = float("-inf")  # what min_new_tokens does
        text.append(int(logits.argmax()))
        logits = run.decode({0: text[-1]})[0]
    assert text == generated[0, len(prompt) :].tolist()


def test_a_bfloat16_checkpoint_runs_close_to_its_float32_self(tmp_path: Path) -> None:
    random_checkpoints.write(tmp_path, "qwen3", dtype="bfloat16")
    prompt = _prompt(70)
    exact = paged_runs.PagedRun(models.load(tmp_path, torch.device("cpu"), torch.float32)).prefill(0, prompt)
    rough = paged_runs.PagedRun(models.load(tmp_path, torch.device("cpu"), torch.bfloat16)).prefill(0, prompt)
    assert rough.dtype == torch.float32
    agreement = torch.nn.functional.cosine_similarity(exact, rough, dim=1)
    assert agreement.min() > 0.99


@pytest.fixture(scope="module", params=["llama", "qwen3"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = random_checkpoints.write(tmp_path_factory.mktemp("model"), request.param)
    return models.load(folder, torch.device("cpu"), torch.float32)


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 180), min_size=1, max_size=4),
    sizes=st.lists(st.one_of(st.integers(0, 1), st.integers(0, 90)), max_size=12),
    cuts=st.lists(st.integers(0, 3), max_size=2),
    page_tokens=st.sampled_from([4, 16]),
    page_seed=st.integers(0, 9),
)
def test_every_schedule_gives_the_same_bits(
    model: Any, lengths: list[int], sizes: list[int], cuts: list[int], page_tokens: int, page_seed: int
) -> None:
    """Chunks, company in the batch, decode steps, layer cuts and page placement are drawn; no bit may change."""
    prompts = [_prompt(length, seed=i) for i, length in enumerate(lengths)]
    expected = [paged_runs.PagedRun(model).prefill(0, prompt)[-1] for prompt in prompts]
    run = paged_runs.PagedRun(model, page_tokens=page_tokens, page_seed=page_seed)
    next_size = itertools.chain(sizes, itertools.repeat(29))
    done = [0] * len(prompts)
    last: dict[int, torch.Tensor] = {}
    while any(done[i] < len(prompt) for i, prompt in enumerate(prompts)):
        chunks = {i: prompt[done[i] : done[i] + next(next_size)] for i, prompt in enumerate(prompts)}
        chunks = {i: chunk for i, chunk in chunks.items() if chunk}
        for i, chunk in chunks.items():
            done[i] += len(chunk)
        if chunks:
            last |= run.step(chunks, cuts=sorted(cuts))
    for i, logits in enumerate(expected):
        assert torch.equal(last[i], logits), i
