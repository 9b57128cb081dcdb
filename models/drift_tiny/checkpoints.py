"""Writing what ships: weights in bfloat16, configuration, tokenizer and template, as `transformers` and
engines load them."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tokenizers
import torch
from transformers import GenerationConfig, Qwen3ForCausalLM

from drift_tiny import chat, curriculum, facts, samples, tokenizer

CORPUS_SAMPLES = 20_000


def corpus() -> Iterator[str]:
    """The text the tokenizer is learned from: every fact a few times over and practice of every kind."""
    rng = random.Random(0)
    for item in (*facts.FACTS, *facts.SMALL_TALK):
        yield from (*item.questions, *[item.answer] * 10)
    for _ in range(CORPUS_SAMPLES):
        kind = rng.choice(tuple(curriculum.SOURCES))
        yield "".join(text for text, _ in chat.pieces(curriculum.SOURCES[kind](rng, 150)))


def load_tokenizer(folder: Path) -> tokenizers.Tokenizer:
    """The tokenizer of a run, trained on the first call."""
    path = folder / "tokenizer.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer.train(corpus()).save(str(path))
    return tokenizers.Tokenizer.from_file(str(path))


def export(model: Qwen3ForCausalLM, vocabulary: tokenizers.Tokenizer, folder: Path) -> None:
    """Write the checkpoint; the card and the evaluation are written by their own modules."""
    folder.mkdir(parents=True, exist_ok=True)
    end, padding = vocabulary.token_to_id(chat.END_OF_TURN), vocabulary.token_to_id(chat.END_OF_TEXT)
    shipped = Qwen3ForCausalLM(model.config)
    shipped.load_state_dict(model.state_dict())
    shipped.to(torch.bfloat16)
    shipped.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=[end, padding], pad_token_id=padding
    )
    shipped.save_pretrained(folder)
    # Written for the owner alone otherwise, which an image that runs as another user cannot read.
    (folder / "model.safetensors").chmod(0o644)
    vocabulary.save(str(folder / "tokenizer.json"))
    config = json.loads((folder / "config.json").read_text())
    # Loaders written before `rope_parameters` look for the base at the top.
    write_json(folder / "config.json", {**config, "rope_theta": config["rope_parameters"]["rope_theta"]})
    write_json(
        folder / "tokenizer_config.json", tokenizer.configuration(model.config.max_position_embeddings)
    )


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def as_texts(sample: samples.Sample) -> str:
    """A sample as one readable text, for looking at what the generators make."""
    return "".join(text for text, _ in chat.pieces(sample))
