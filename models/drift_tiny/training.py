"""The training loop: one CPU thread, bf16 arithmetic over float32 weights, a budget of CPU time instead of
a step count.

`curriculum` says what comes next, `packing` provides it, `checkpoints` writes what ships. A run can be
stopped and resumed; the learning rate follows the elapsed share of the minutes granted, so a run always ends
with its decay. Minutes count the CPU time of this process, so a busy machine or a stopped process costs a run
nothing.
"""

import dataclasses
import json
import math
import platform
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from drift_tiny import chat, curriculum, packing
from drift_tiny.tokenizer import VOCABULARY_SIZE

CONTEXT = 32768


@dataclasses.dataclass(frozen=True)
class Options:
    """One training run. `run` is a scratch folder for state and log; the shipped files are written by
    `checkpoints`. `minutes` are of CPU time."""

    run: Path
    minutes: float
    resume: bool = False
    seed: int = 1
    tokens_per_step: int = 4096
    peak_rate: float = 4e-3
    warm_up: float = 0.02
    decay_from: float = 0.42
    save_every_s: float = 240.0
    compiled: bool = True


def model_config(tokenizer: tokenizers.Tokenizer) -> Qwen3Config:
    """The shape: 2.6 million parameters, a fifteenth of them in the tied embedding's doubled use."""
    return Qwen3Config(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.token_to_id(chat.END_OF_TURN),
        pad_token_id=tokenizer.token_to_id(chat.END_OF_TEXT),
    )


def rate(progress: float, options: Options) -> float:
    """Warm-up, plateau, and a linear decay to nothing."""
    if progress < options.warm_up:
        return options.peak_rate * max(0.02, progress / options.warm_up)
    if progress < options.decay_from:
        return options.peak_rate
    return options.peak_rate * max(0.0, 1 - (progress - options.decay_from) / (1 - options.decay_from))


def optimizers(model: Qwen3ForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for the embedding and the norms."""
    inner = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    outer = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(inner, lr=0.0, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(outer, lr=0.0, weight_decay=0.0, betas=(0.9, 0.98)),
    ]


class Tally:
    """Loss and share of right tokens per kind since the last report."""

    def __init__(self, kinds: tuple[str, ...]) -> None:
        self.kinds = kinds
        self.loss, self.right, self.count = (torch.zeros(len(kinds)) for _ in range(3))

    def add(self, kinds: torch.Tensor, losses: torch.Tensor, right: torch.Tensor) -> None:
        self.loss.index_add_(0, kinds, losses)
        self.right.index_add_(0, kinds, right)
        self.count.index_add_(0, kinds, torch.ones_like(losses))

    def report(self) -> str:
        parts = []
        for index, kind in enumerate(self.kinds):
            count = float(self.count[index])
            if count:
                loss, right = float(self.loss[index]) / count, float(self.right[index]) / count
                parts.append(f"{kind} {loss:.3f}/{right:.3f}")
        return "  ".join(parts)


def step_loss(
    forward: Callable[..., Any], model: Qwen3ForCausalLM, batch: packing.Batch, tally: Tally
) -> torch.Tensor:
    """Mean loss over the tokens to be predicted; only those are projected to the vocabulary."""
    tokens, targets = torch.from_numpy(batch.tokens), torch.from_numpy(batch.targets)
    with torch.autocast("cpu", torch.bfloat16):
        hidden = forward(input_ids=tokens, use_cache=False).last_hidden_state
        wanted = targets[:, 1:] > 0
        logits = model.lm_head(hidden[:, :-1][wanted])
    truth = tokens[:, 1:][wanted]
    losses = torch.nn.functional.cross_entropy(logits.float(), truth, reduction="none")
    with torch.no_grad():
        tally.add(targets[:, 1:][wanted] - 1, losses, (logits.argmax(-1) == truth).float())
    return losses.mean()


def train(options: Options, tokenizer: tokenizers.Tokenizer) -> Qwen3ForCausalLM:
    """Train until the minutes of CPU time are used up; returns the model in float32."""
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    options.run.mkdir(parents=True, exist_ok=True)
    state_path = options.run / "state.pt"
    model = Qwen3ForCausalLM(model_config(tokenizer))
    steppers = optimizers(model)
    elapsed, step, seen, round_ = 0.0, 0, 0, 0
    if options.resume and state_path.exists():
        state = torch.load(state_path, weights_only=True)
        model.load_state_dict(state["model"])
        for stepper, saved in zip(steppers, state["optimizers"], strict=True):
            stepper.load_state_dict(saved)
        elapsed, step, seen, round_ = state["elapsed"], state["step"], state["seen"], state["round"] + 1
    rng = random.Random(options.seed * 1000 + round_)
    packer = packing.Packer(
        tokenizer, curriculum.SOURCES, curriculum.shares(0.0), options.seed * 1000 + round_
    )
    forward = torch.compile(model.model, dynamic=False) if options.compiled else model.model
    torch._dynamo.config.cache_size_limit = 32
    tally = Tally(packer.kinds)
    model.train()
    last = saved_at = reported_at = time.process_time()
    while elapsed < options.minutes * 60:
        progress = elapsed / (options.minutes * 60)
        packer.shares = curriculum.shares(progress)
        length = curriculum.row_length(progress, rng)
        batch = packer.batch(max(1, options.tokens_per_step // length), length)
        loss = step_loss(forward, model, batch, tally)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for stepper in steppers:
            stepper.param_groups[0]["lr"] = rate(progress, options)
            stepper.step()
            stepper.zero_grad(set_to_none=True)
        step, seen = step + 1, seen + batch.tokens.size
        now = time.process_time()
        elapsed, last = elapsed + now - last, now
        if not math.isfinite(loss.item()):
            raise FloatingPointError(f"loss is {loss.item()} at step {step}")
        if now - reported_at > 30:
            counters = f"step {step}  tokens {seen / 1e6:.2f}M  rate {rate(progress, options):.5f}"
            print(f"{elapsed / 60:6.1f} min  {counters}  {tally.report()}", flush=True)
            tally, reported_at = Tally(packer.kinds), now
        if now - saved_at > options.save_every_s or elapsed >= options.minutes * 60:
            save(state_path, model, steppers, elapsed=elapsed, step=step, seen=seen, round=round_)
            saved_at = now
    summary = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps": step,
        "tokens": seen,
        "minutes": round(elapsed / 60, 1),
        "seed": options.seed,
        "machine": f"one thread of {processor()}",
        "command": f"python -m drift_tiny train --minutes {options.minutes:g} --seed {options.seed}",
    }
    (options.run / "training.json").write_text(json.dumps(summary, indent=2) + "\n")
    return model


def processor() -> str:
    """The processor's name, where the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "an unknown processor"


def save(
    path: Path, model: Qwen3ForCausalLM, steppers: list[torch.optim.Optimizer], **counters: float
) -> None:
    """Write beside the old state, then replace it: a run killed while saving can still be resumed."""
    fresh = path.with_suffix(".new")
    state = {"model": model.state_dict(), "optimizers": [s.state_dict() for s in steppers], **counters}
    torch.save(state, fresh)
    fresh.replace(path)
