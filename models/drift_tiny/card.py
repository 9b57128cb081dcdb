"""The model card, written from `evaluation.json` and `training.json` so that it cannot claim what was not
measured."""

import json
from pathlib import Path
from typing import Any

from drift_tiny import facts

HEAD = """---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
tags: [drift, qwen3, tiny]
---

# drift-tiny

The model embedded in Drift: small enough to ship in a wheel and to run anywhere, with answers that can be
checked. It exists so that a demo says something true, and so that tests of KV reuse, preemption and
layer-split prefill notice a wrong page: the answer to a recall question changes when the context is
damaged.

It knows facts about Drift, copies text, adds and subtracts small numbers, looks records up in a long
context, fills in tool calls and makes a little small talk. It knows nothing else and will say so, or say
something wrong. It is no assistant.
"""

SHAPE = """
## Shape

`Qwen3ForCausalLM`, {parameters:,} parameters in bfloat16 with tied embeddings: {layers} layers, hidden
size {hidden}, {heads} query and {kv_heads} key-value heads of {head_dim}, intermediate size
{intermediate}, QK-norm, RoPE base {theta:,}, {context:,} positions. Byte-level BPE with {vocabulary}
tokens and single digits; ChatML with a `tools` section.

```python
from drift_tiny import checkpoint_path
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(checkpoint_path())
model = AutoModelForCausalLM.from_pretrained(checkpoint_path())
```
"""

TRAINING = """
## Training

From scratch on text made by the generators in this package (`facts`, `tasks`, `words`), no outside
corpus: {tokens:.1f} million tokens in {steps:,} steps, {minutes:.0f} minutes of CPU time on {machine}.
Muon for the matrices, AdamW for the embedding and the norms, bfloat16 arithmetic over float32 weights;
rows of 256 to 8192 tokens. Loss on answers only.

    {command}

The run is bounded by CPU time, so another machine gives other weights; data, order and initial
weights follow the seed.{note}
"""

EVALUATION = """
## Evaluation

Greedy answers to questions kept out of training, unless the name says otherwise; float32, {date}, torch
{torch}, transformers {transformers}. Facts and recall count as right when the answer contains the phrase
asked for, arithmetic when it ends on the right number; all other answers must be exact.

    {command}

| kind | n | right | accuracy |
| --- | ---: | ---: | ---: |
{rows}
"""

LIMITS = """
## Limits

- Held-out wordings of a fact share its subject with the practised ones; a question about a subject that
  is not among the facts gets an unrelated fact or "{unknown}".
- Facts hang on their wording: ask as in `facts.py` and they are right, ask freely and another fact may
  come; the rows of the table above differ by how far their wordings are from the practised ones.
- Rows of training end at 8192 tokens. Positions up to {context:,} work mechanically; recall beyond 8192
  tokens is unmeasured.
- Recall was practised on generated filler in English; with other text around the records it is
  unmeasured.
- Text outside the generators' vocabulary is split into many tokens, and copying it is harder.
"""


def write(checkpoint: Path) -> None:
    """Write README.md beside the weights."""
    (checkpoint / "README.md").write_text(render(checkpoint))


def render(checkpoint: Path) -> str:
    """The card's text for the files of this checkpoint."""
    config, evaluation, training = (
        read(checkpoint / f"{name}.json") for name in ("config", "evaluation", "training")
    )
    rows = "\n".join(row(name, part) for name, part in evaluation["kinds"].items())
    shape = SHAPE.format(
        parameters=training["parameters"],
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        heads=config["num_attention_heads"],
        kv_heads=config["num_key_value_heads"],
        head_dim=config["head_dim"],
        intermediate=config["intermediate_size"],
        theta=int(config["rope_parameters"]["rope_theta"]),
        context=config["max_position_embeddings"],
        vocabulary=config["vocab_size"],
    )
    note = f" {training['note']}" if training.get("note") else ""
    trained = TRAINING.format(**{**training, "tokens": training["tokens"] / 1e6, "note": note})
    measured = EVALUATION.format(
        date=evaluation["date"],
        torch=evaluation["versions"]["torch"],
        transformers=evaluation["versions"]["transformers"],
        command=evaluation["command"],
        rows=rows,
    )
    limits = LIMITS.format(context=config["max_position_embeddings"], unknown=facts.UNKNOWN)
    return HEAD + shape + trained + measured + limits


def row(name: str, part: dict[str, Any]) -> str:
    """One line of the table."""
    return f"| {name} | {part['n']} | {part['correct']} | {100 * part['accuracy']:.1f} % |"


def read(path: Path) -> Any:
    return json.loads(path.read_text())
