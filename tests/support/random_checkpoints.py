"""Writes tiny Hugging Face checkpoints with random weights, for tests of everything that opens a model.

    folder = random_checkpoints.write(tmp_path / "llama", "llama")
    folder = random_checkpoints.write(tmp_path / "q", "qwen3", num_key_value_heads=1, tie_word_embeddings=True)

The folder holds config.json, generation_config.json, model.safetensors (sharded with `shard_bytes`), and a byte-level
tokenizer with a chat template. The same arguments give the same bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

FAMILIES = ("llama", "qwen2", "qwen3", "mistral")

EOS_TOKEN = "<|end|>"
SPECIAL_TOKENS = ("<|pad|>", "<|user|>", "<|assistant|>", "<|system|>", EOS_TOKEN)

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

_SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}

# Larger than the families' 0.02, so that a tiny model's greedy text varies and a wrong rotation or bias shows.
_WEIGHT_STD = 0.15


def write(
    path: Path,
    family: str,
    *,
    seed: int = 0,
    dtype: str = "float32",
    shard_bytes: int | None = None,
    **overrides: Any,
) -> Path:
    """Writes a checkpoint of one of FAMILIES to `path` and returns it; `overrides` are config.json's own keys."""
    model = build(family, seed=seed, dtype=dtype, **overrides)
    model.save_pretrained(path, max_shard_size=shard_bytes or 1 << 40)
    write_tokenizer(path)
    return path


def build(family: str, *, seed: int = 0, dtype: str = "float32", **overrides: Any) -> Any:
    """The transformers model that `write` saves, in evaluation mode."""
    tokenizer = byte_tokenizer()
    settings = {
        **_SHAPE,
        "vocab_size": tokenizer.get_vocab_size(),
        "eos_token_id": tokenizer.token_to_id(EOS_TOKEN),
        "pad_token_id": tokenizer.token_to_id("<|pad|>"),
        "bos_token_id": None,
        **({"sliding_window": None} if family == "mistral" else {}),
        **overrides,
    }
    config = transformers.AutoConfig.for_model(family, **settings)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if name.endswith("norm.weight") else 0.0
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * _WEIGHT_STD + centre)
    return model


def byte_tokenizer() -> Tokenizer:
    """Every byte is a token; the special tokens follow."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={character: i for i, character in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def write_tokenizer(path: Path) -> None:
    """tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=byte_tokenizer(),
        eos_token=EOS_TOKEN,
        pad_token="<|pad|>",
        chat_template=CHAT_TEMPLATE,
    )
    tokenizer.save_pretrained(path)
