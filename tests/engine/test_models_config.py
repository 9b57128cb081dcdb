"""Reading config.json: old and new spellings, defaults, and what is refused in which words."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers

from drift_engine import models
from drift_engine.errors import ModelError
from drift_engine.models import config, scalings

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "vocab_size": 300,
}
LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def _read(
    tmp_path: Path, changes: dict[str, Any], generation: dict[str, Any] | None = None
) -> models.ModelConfig:
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, **changes}))
    if generation is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    return models.read_config(tmp_path)


def _refusal(tmp_path: Path, changes: dict[str, Any]) -> str:
    with pytest.raises(ModelError) as caught:
        _read(tmp_path, changes)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_defaults_are_those_of_transformers(tmp_path: Path) -> None:
    ours = _read(tmp_path, {})
    assert (ours.num_kv_heads, ours.head_dim, ours.tie_word_embeddings) == (4, 16, False)
    assert ours.rope == scalings.Rope(10_000.0)
    assert ours.rms_norm_eps == transformers.LlamaConfig().rms_norm_eps
    assert ours.dtype == "float32"
    assert (
        _read(tmp_path, {"architectures": ["Qwen3ForCausalLM"]}).head_dim
        == transformers.Qwen3Config().head_dim
    )


def test_parameters_are_counted_as_transformers_counts_them(tmp_path: Path) -> None:
    shape = {"num_key_value_heads": 2, "head_dim": 24, "tie_word_embeddings": True, "attention_bias": True}
    theirs = transformers.AutoModelForCausalLM.from_config(
        transformers.Qwen3Config(**{k: v for k, v in {**LLAMA, **shape}.items() if k != "architectures"})
    )
    ours = _read(tmp_path, {**shape, "architectures": ["Qwen3ForCausalLM"]})
    assert ours.num_parameters == theirs.num_parameters()


@pytest.mark.parametrize(
    "spelling",
    [
        {"rope_theta": 5e5, "rope_scaling": {**LLAMA3, "rope_type": "llama3"}},
        {"rope_theta": 5e5, "rope_scaling": {**LLAMA3, "type": "llama3"}},
        {"rope_parameters": {**LLAMA3, "rope_type": "llama3", "rope_theta": 5e5}},
    ],
)
def test_rope_is_read_in_every_spelling(tmp_path: Path, spelling: dict[str, Any]) -> None:
    expected = scalings.Rope(5e5, scalings.Llama3(8.0, 1.0, 4.0, 64))
    assert _read(tmp_path, spelling).rope == expected


def test_the_saved_dtype_is_read_in_both_spellings(tmp_path: Path) -> None:
    assert _read(tmp_path, {"torch_dtype": "bfloat16"}).dtype == "bfloat16"
    assert _read(tmp_path, {"dtype": "float16"}).dtype == "float16"


def test_yarn_stretches_the_longest_context(tmp_path: Path) -> None:
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}
    assert _read(tmp_path, {"rope_scaling": yarn}).longest_context_tokens == 2048


def test_every_end_of_text_counts(tmp_path: Path) -> None:
    assert _read(tmp_path, {"eos_token_id": 7}).eos_token_ids == (7,)
    assert _read(tmp_path, {"eos_token_id": 7}, {"eos_token_id": [9, 7]}).eos_token_ids == (9, 7)


@pytest.mark.parametrize(
    ("changes", "window"),
    [
        ({"architectures": ["MistralForCausalLM"]}, 4096),
        ({"architectures": ["MistralForCausalLM"], "sliding_window": None}, None),
        ({"architectures": ["MistralForCausalLM"], "sliding_window": 128}, 128),
        ({"architectures": ["Qwen2ForCausalLM"], "sliding_window": 128, "use_sliding_window": False}, None),
        ({"architectures": ["Qwen2ForCausalLM"], "sliding_window": 128}, None),
        ({"architectures": ["Qwen3ForCausalLM"], "sliding_window": 128, "use_sliding_window": True}, None),
        (
            {
                "architectures": ["Qwen2ForCausalLM"],
                "sliding_window": 128,
                "use_sliding_window": True,
                "max_window_layers": 1,
            },
            128,
        ),
    ],
)
def test_a_sliding_window_bounds_the_context_only_where_it_is_active(
    tmp_path: Path, changes: dict[str, Any], window: int | None
) -> None:
    ours = _read(tmp_path, changes)
    assert ours.sliding_window_tokens == window
    assert ours.longest_context_tokens == min(512, window or 512)
    ours.check_context(ours.longest_context_tokens)
    with pytest.raises(
        ModelError, match=r"max_model_len_tokens: 1000 is above the model's maximum 512|sliding window"
    ):
        ours.check_context(1000)


def test_a_context_beyond_the_window_is_refused_with_both_lengths(tmp_path: Path) -> None:
    ours = _read(tmp_path, {"architectures": ["MistralForCausalLM"], "sliding_window": 128})
    with pytest.raises(
        ModelError, match=r"129 is above the model's sliding window of 128 tokens; .* at most 128"
    ):
        ours.check_context(129)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"architectures": ["GPT2LMHeadModel"]},
            "'GPT2LMHeadModel' is not supported; supported: LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM, "
            "MistralForCausalLM",
        ),
        ({"architectures": None}, "architectures: None names no architecture"),
        (
            {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
            "the RoPE scaling 'dynamic' is not supported; supported: default, linear, llama3, yarn",
        ),
        ({"rope_parameters": {"rope_type": "longrope"}}, "the RoPE scaling 'longrope' is not supported"),
        (
            {"rope_scaling": {"type": "default", "mrope_section": [1, 2]}},
            "the RoPE scaling 'mrope' is not supported",
        ),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling: factor: is missing"),
        (
            {"rope_scaling": {**LLAMA3, "type": "llama3", "high_freq_factor": 1.0}},
            "high_freq_factor: 1.0 is not above low_freq_factor 1.0",
        ),
        ({"rope_parameters": {"full_attention": {}}}, "parameters per layer type are not supported"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor: only 1.0 is supported"),
        ({"hidden_size": None}, "config.json: hidden_size: is missing"),
        ({"hidden_size": "64"}, "hidden_size: '64' is not an integer"),
        ({"num_hidden_layers": 0}, "num_hidden_layers: 0 is below the minimum 1"),
        ({"rms_norm_eps": -1}, "rms_norm_eps: -1 is not above 0"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings: 'yes' is not true or false"),
        ({"num_key_value_heads": 3}, "num_attention_heads: 4 is not a multiple of 3 kv heads"),
        ({"head_dim": 15}, "head_dim: 15 is odd"),
        ({"hidden_act": "gelu"}, "hidden_act: 'gelu' is not supported; supported: silu"),
        (
            {"quantization_config": {"quant_method": "gptq"}},
            "checkpoints quantized with 'gptq' are not supported",
        ),
        (
            {"torch_dtype": "float8"},
            "dtype: 'float8' is not supported; supported: float32, bfloat16, float16",
        ),
        ({"eos_token_id": 300}, "eos_token_id: 300 is not below vocab_size 300"),
        ({"eos_token_id": "end"}, "eos_token_id: 'end' is not a token id"),
    ],
)
def test_what_cannot_be_served_is_named(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    assert expected in _refusal(tmp_path, changes)


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config.json; is this a Hugging Face model folder\?"):
        models.read_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config.json: can't be read as JSON"):
        models.read_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ModelError, match="expected a JSON object, found list"):
        models.read_config(tmp_path)


def test_reading_a_configuration_needs_no_torch() -> None:
    script = f"import sys, {config.__name__}; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0
