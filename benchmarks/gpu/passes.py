"""Steps `decode` and `prefill`: single passes through a lane at chosen batches and contexts, eager and as graphs.

What a pass takes is measured as the engine measures it (CUDA events on the lane's stream), with the host's launch
time and the wall clock beside it. `bytes` counts weights and KV once, `flop` products and attention: over the rates
of step `machine` they give the floor.
"""

from __future__ import annotations

import random
import statistics
import time
from typing import Any

from benchmarks.gpu.reports import Report
from benchmarks.gpu.setups import PAGE_TOKENS, Setup

from drift_engine import wire
from drift_engine.devices.base import Device, Draw, Lane, Pass, Row
from drift_engine.devices.runner import Runner
from drift_engine.models.config import ModelConfig

WAIT_S = 60.0
"""Includes compiling a kernel's first variant."""

GREEDY = wire.Sampling(max_tokens=1, temperature=0.0)

CASE_S = 6.0
"""A step ends when less is left: one case with its warm-up. Estimate, not yet measured."""


Filling = tuple[list[int], list[tuple[int, int]]]
"""Contexts of decode rows, and (new, cached) tokens of prefill rows."""

FILLINGS: tuple[Filling, ...] = (
    *(([], [(new, 0)]) for new in (256, 512, 1024, 2048, 4096, 8192)),
    ([], [(256, 0)] * 8),  # short prompts together
    *(([], [(512, cached)]) for cached in (2048, 8192, 30720)),  # a cached prefix
    *(([2048] * 32, [(chunk, 0)]) for chunk in (128, 512, 1024)),  # a fused step
)
TINY_FILLINGS: tuple[Filling, ...] = (([], [(16, 0)]), ([], [(16, 40)]), ([30] * 2, [(16, 0)]))


class Pages:
    """Disjoint random pages for the rows of a pass."""

    def __init__(self, runner: Runner) -> None:
        self._free = list(range(runner.kv.pages))
        random.Random(0).shuffle(self._free)

    def take(self, tokens: int) -> list[int] | None:
        count = -(-tokens // PAGE_TOKENS)
        if count > len(self._free):
            return None
        taken, self._free = self._free[:count], self._free[count:]
        return taken


def row(name: str, new: int, cached: int, pages: Pages, vocab: int) -> Row | None:
    """None where the KV store is too small."""
    taken = pages.take(new + cached)
    if taken is None:
        return None
    tokens = random.Random(name).choices(range(vocab), k=new)
    return Row(name, tokens, cached, taken, Draw(GREEDY, tokens, new))


def build(runner: Runner, decode: list[int], prefill: list[tuple[int, int]]) -> Pass | None:
    """Decode rows of these contexts and prefill rows of (new, cached) tokens; None where they don't fit."""
    vocab, pages = runner.model.config.vocab_size, Pages(runner)
    decoding = [row(f"d{i}", 1, context - 1, pages, vocab) for i, context in enumerate(decode)]
    filling = [row(f"p{i}", new, cached, pages, vocab) for i, (new, cached) in enumerate(prefill)]
    rows = [r for r in (*decoding, *filling) if r is not None]
    if len(rows) < len(decoding) + len(filling):
        return None
    return Pass(tuple(rows[: len(decoding)]), tuple(rows[len(decoding) :]))


def measure(
    runner: Runner, device: Device, work: Pass, *, repeats: int, lane: Lane | None = None
) -> dict[str, Any]:
    """Medians over `repeats` of one pass after another on a lane, by default the whole device's, each waited for;
    the first, which warms up, apart."""
    lane = lane or device.whole
    samples: list[tuple[float, float, float, float]] = []
    first_s = 0.0
    for index in range(repeats + 2):
        start_s = time.perf_counter()
        event = lane.launch(work)
        launch_s = time.perf_counter() - start_s
        if not device.wait([event], WAIT_S):
            raise TimeoutError(f"a pass did not end within {WAIT_S:.0f} s")
        wall_s = time.perf_counter() - start_s
        results = event.results()
        if index == 0:
            first_s = wall_s
        elif index > 1:
            samples.append((results.forward_s, results.pass_s, launch_s, wall_s))
    for request in work.rows:
        device.release(request.request_id)
    forward_s, pass_s, launch_s, wall_s = (statistics.median(values) for values in zip(*samples, strict=True))
    return {
        "forward_ms": forward_s * 1e3,
        "pass_ms": pass_s * 1e3,
        "launch_ms": launch_s * 1e3,
        "wall_ms": wall_s * 1e3,
        "first_ms": first_s * 1e3,
    }


def costs(config: ModelConfig, work: Pass, element_bytes: int) -> dict[str, float]:
    """The fewest bytes and operations of a pass: products of all tokens, logits of the last ones."""
    head = config.vocab_size * config.hidden_size
    layers = config.num_parameters - (head if config.tie_word_embeddings else 2 * head)
    tokens = sum(len(r.token_ids) for r in work.rows)
    pairs = sum(len(r.token_ids) * (r.start + (len(r.token_ids) + 1) / 2) for r in work.rows)
    context = sum(r.start + len(r.token_ids) for r in work.rows)
    kv_bytes = 2 * config.num_layers * config.kv_size * element_bytes
    return {
        "bytes": (layers + head) * element_bytes + context * kv_bytes,
        "flop": 2 * layers * tokens
        + 2 * head * len(work.rows)
        + 4 * pairs * config.num_layers * config.q_size,
    }


def decode(report: Report, *, dry_run: bool) -> None:
    setup = Setup(dry_run)
    runner = setup.runner()
    report.set("kv_tokens", runner.kv.pages * PAGE_TOKENS)
    batches = (1, 3) if dry_run else (1, 2, 4, 8, 16, 32, 64, 128)
    contexts = (40, 100) if dry_run else (512, 2048, 8192)
    devices = {
        name: setup.open(runner, max_running=max(batches), graphs=name == "graph")
        for name in ("eager", "graph")
    }
    for context in contexts:
        for batch in batches:
            if report.left_s() < CASE_S:
                report.set("cut_short", True)
                return
            case: dict[str, Any] = {"batch": batch, "context_tokens": context}
            work = build(runner, [context] * batch, [])
            if work is None:
                report.add("decode", case | {"skipped": "more KV than fits"})
                continue
            case |= costs(runner.model.config, work, runner.model.dtype.itemsize)
            for name, device in devices.items():
                case[name] = measure(runner, device, work, repeats=2 if dry_run else 15)
            report.add("decode", case)
    for device in devices.values():
        device.close()


def prefill(report: Report, *, dry_run: bool) -> None:
    setup = Setup(dry_run)
    runner = setup.runner()
    device = setup.open(runner, max_running=64, graphs=False)
    for decoding, filling in TINY_FILLINGS if dry_run else FILLINGS:
        if report.left_s() < CASE_S:
            report.set("cut_short", True)
            return
        case: dict[str, Any] = {"decode_contexts": decoding, "prefill_new_and_cached": filling}
        work = build(runner, decoding, filling)
        if work is None:
            report.add("prefill", case | {"skipped": "more KV than fits"})
            continue
        case |= costs(runner.model.config, work, runner.model.dtype.itemsize)
        case |= measure(runner, device, work, repeats=2 if dry_run else 8)
        case["tflop_per_s"] = case["flop"] / case["forward_ms"] / 1e9
        report.add("prefill", case)
    device.close()
