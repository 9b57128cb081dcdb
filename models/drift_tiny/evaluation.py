"""Greedy answers to questions that training never saw, counted per kind into `evaluation.json`, from which
`card` is written.

The questions are drawn from the same generators as the training data, on the other side of
`samples.is_held_out`, and for facts from the wordings kept back. They depend on a fixed seed and on nothing
measured.
"""

import datetime
import functools
import json
import platform
import random
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from transformers import Qwen3ForCausalLM

from drift_tiny import card, chat, facts, samples, tasks

SEED = 20_000
RECALL_LENGTHS = (256, 1024, 2048, 4096, 8192)
"""Tokens of context in front of the question."""

MOST_LONG_SAMPLES = {2048: 100, 4096: 100, 8192: 50}
"""Questions per recall length where one answer takes seconds."""

BATCH_TOKENS, MOST_ROWS = 4096, 32


class Answerer:
    """The model behind greedy replies."""

    def __init__(self, checkpoint: Path, threads: int = 1) -> None:
        torch.set_num_threads(threads)
        self.tokenizer = tokenizers.Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
        self.model = Qwen3ForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
        self.padding = self.tokenizer.token_to_id(chat.END_OF_TEXT)
        self.stops = {self.tokenizer.token_to_id(chat.END_OF_TURN), self.padding}

    def length(self, text: str) -> int:
        return len(self.tokenizer.encode(text).ids)

    def answers(self, prompts: Sequence[str], limit: int) -> list[str]:
        """What the model says after each prompt, at most `limit` tokens; the prompts are padded on the left."""
        ids = [self.tokenizer.encode(prompt).ids for prompt in prompts]
        width = max(len(row) for row in ids)
        tokens = torch.tensor([[self.padding] * (width - len(row)) + row for row in ids])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids])
        with torch.inference_mode():
            output = self.model.generate(tokens, attention_mask=mask, max_new_tokens=limit, do_sample=False)
        return [self.said(row) for row in output[:, width:].tolist()]

    def said(self, ids: list[int]) -> str:
        """The text up to the first token that ends the turn."""
        end = next((index for index, token in enumerate(ids) if token in self.stops), len(ids))
        return str(self.tokenizer.decode(ids[:end], skip_special_tokens=False))

    def reply(self, sample: samples.Sample) -> str:
        """The model's own last answer, the earlier turns being given."""
        return self.replies([sample])[0]

    def replies(self, asked: Sequence[samples.Sample]) -> list[str]:
        """Answers to several samples, in batches of similar length and at most `BATCH_TOKENS` tokens."""
        prompts = [prompt(sample) for sample in asked]
        lengths = [self.length(text) for text in prompts]
        limits = [self.length(sample.answer) + 16 for sample in asked]
        found = [""] * len(asked)
        waiting = sorted(range(len(asked)), key=lambda index: (lengths[index], limits[index]))
        while waiting:
            take = max(1, min(MOST_ROWS, BATCH_TOKENS // lengths[waiting[0]]))
            batch, waiting = waiting[:take], waiting[take:]
            said = self.answers([prompts[index] for index in batch], max(limits[index] for index in batch))
            for index, text in zip(batch, said, strict=True):
                found[index] = text.split("\n")[0] if asked[index].plain else text
        return found


def prompt(sample: samples.Sample) -> str:
    """The text in front of the sample's last answer."""
    if sample.plain:
        return "".join(turn.content for turn in sample.turns[:-1])
    return chat.prompt(sample)


def is_right(sample: samples.Sample, reply: str) -> bool:
    """Facts and recall must contain the phrase, arithmetic must end on the number, everything else must be
    exact."""
    if sample.kind in ("facts", "chat"):
        return sample.expected in reply
    if sample.kind == "recall":
        return re.search(rf"(?<!\w){re.escape(sample.expected)}(?!\w)", reply) is not None
    if sample.kind == "arithmetic":
        return re.findall(r"-?\d+", reply)[-1:] == [sample.expected]
    return reply == sample.answer


def several(generate: tasks.Generator, count: int, split: bool = True) -> list[samples.Sample]:
    """That many held-out samples; with `split` off the generator does the splitting itself."""
    rng = random.Random(SEED)
    return [tasks.draw(generate, rng, held_out=True) if split else generate(rng) for _ in range(count)]


def sums(digits: Callable[[int], bool]) -> tasks.Generator:
    """Unseen sums and differences whose larger operand passes the test."""

    def generate(rng: random.Random) -> samples.Sample:
        while True:
            sample = tasks.unseen_arithmetic(rng)
            if digits(max(int(number) for number in re.findall(r"\d+", sample.answer)[:2])):
                return sample

    return generate


def products() -> list[samples.Sample]:
    """The whole table of twelve; training contains it, so this measures memory and not generalisation."""
    pairs = [(left, right) for left in range(13) for right in range(13)]
    return [
        tasks.ask(
            "arithmetic",
            f"What is {left} * {right}?",
            f"{left} * {right} = {left * right}",
            str(left * right),
        )
        for left, right in pairs
    ]


def plain_facts() -> list[samples.Sample]:
    """Facts asked as plain text, outside the chat template."""
    found = []
    for item in facts.FACTS:
        turns = (
            samples.Turn("user", f"Q: {item.held_out[0]}\nA:"),
            samples.Turn("assistant", f" {item.answer}"),
        )
        found.append(samples.Sample("facts", turns, item.expected, plain=True))
    return found


def questions(count: int, length: tasks.Length) -> Iterator[tuple[str, list[samples.Sample]]]:
    """The evaluation: the name of each part and its samples."""
    yield "facts, held-out wordings", facts.held_out(facts.FACTS, "facts")
    yield "facts, freely worded, first list", facts.fresh()
    yield "facts, freely worded, second list", facts.fresh_too()
    yield "facts, held-out wordings, plain text", plain_facts()
    yield "small talk, held-out wordings", facts.held_out(facts.SMALL_TALK, "chat")
    yield "copying", several(tasks.copying, count)
    yield "sums and differences, up to 2 digits", several(sums(lambda n: n < 100), count, split=False)
    yield "sums and differences, 3 digits", several(sums(lambda n: n >= 100), count, split=False)
    yield "products up to 12 x 12 (all practised)", products()
    yield "lists and counting", several(tasks.lists, count)
    yield "tool calls", several(tasks.tools, count)
    yield (
        "recall, fourth question of a chat over 1024 tokens",
        several(lambda rng: tasks.recall(rng, 1024, queries=4, length=length), min(count, 100)),
    )
    for room in RECALL_LENGTHS:
        yield (
            f"recall over {room} tokens",
            several(
                functools.partial(tasks.recall, room=room, queries=1, length=length),
                min(count, MOST_LONG_SAMPLES.get(room, count)),
            ),
        )


def run(checkpoint: Path, count: int, verbose: bool = True) -> dict[str, Any]:
    """Evaluate, write `evaluation.json` and the card beside the weights, and return the result."""
    answerer = Answerer(checkpoint)
    parts: dict[str, dict[str, Any]] = {}
    for name, asked in questions(count, answerer.length):
        right = 0
        for sample, reply in zip(asked, answerer.replies(asked), strict=True):
            good = is_right(sample, reply)
            right += good
            if verbose and not good:
                asked_last = sample.turns[-2].content[-160:]
                print(f"  {name}: {asked_last!r} -> {reply!r}, expected {sample.expected!r}")
        parts[name] = {"n": len(asked), "correct": right, "accuracy": round(right / len(asked), 4)}
        print(f"{name}: {right}/{len(asked)}", flush=True)
    result = {
        "model": "drift-tiny",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": f"python -m drift_tiny evaluate --samples {count}",
        "decoding": "greedy, float32",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
        },
        "kinds": parts,
    }
    (checkpoint / "evaluation.json").write_text(json.dumps(result, indent=2) + "\n")
    card.write(checkpoint)
    return result
