"""What a decision costs: the planner's picture from queues, and the plan.

    python -m benchmarks.engine.planner --json benchmarks/engine/results/planner.json

Sixty-four requests decode beside 32 or 1,000 that wait, of 512 tokens each, on 132 SMs with six splits; the latency
model knows an 8B model's speeds. Four moments by mode: a decode step ended (every row has one token more, the prefix
cache changed, a prefill may begin), the same with a prompt of 20,000 tokens half computed (others may overtake it),
something happened while a step and a cut prefill run (nothing of the line changed), and a cut prefill ended while a
step runs (another may begin). Also how long the line takes when it must be sorted anew. Medians and 90th percentiles:
what is beyond is the host's other work.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.engine import results

from drift_engine import wire
from drift_engine.cache import KvCache
from drift_engine.core import pictures
from drift_engine.core.queues import AHEAD_S, Queues
from drift_engine.core.requests import Promise, Request
from drift_engine.latency import LatencyModel
from drift_engine.latency.costs import Costs, DecodeCost, PrefillCost
from drift_engine.latency.loads import Load
from drift_engine.scheduling import batch_table, order, planner, splits, views
from drift_engine.scheduling.sharing import marks

RUNNING, CONTEXT_TOKENS, PROMPT_TOKENS, LONG_TOKENS = 64, 1000, 512, 20_000
SMS = 132
SPLITS = tuple(wire.Split(sms, SMS - sms) for sms in (16, 24, 32, 48, 64, 88))
OVERLAPPING = wire.Split(SMS, SMS)
LIMITS = views.Limits(2 * RUNNING, None, 2048, 32, 1, 0.1)
LAPS = 2000


def speeds(sms: int) -> Costs:
    """Of an 8B model: arithmetic goes with the SMs, memory is saturated by 48 of them."""
    compute, memory = SMS / sms, max(1.0, 48 / sms)
    return Costs(
        PrefillCost(1e-9 * compute, 2e-9 * compute, 3e-5 * compute, 5e-3 * memory, 1e-3 * memory),
        DecodeCost(3e-8 * memory, 3e-5 * compute, 5e-3 * memory),
    )


class Scene:
    """A node's requests and pages, without a device; on order one of the prompts is half computed."""

    def __init__(self, mode: wire.Mode, waiting: int, *, halved: bool = False) -> None:
        self.mode = mode
        self.cache = KvCache(16_384, 16)
        self.queues = Queues()
        self.latency = LatencyModel(speeds)
        self.now_s = 1000.0
        self.splits = splits.usable(mode, (*SPLITS, OVERLAPPING), SMS)
        self.table = batch_table.tuned(self.splits, LIMITS.max_running, 1024, 0.08, self.latency) or ()
        self.promise = promise = Promise(wire.Targets(400.0, 0.0, 80.0))
        for index in range(RUNNING + waiting):
            tokens = CONTEXT_TOKENS if index < RUNNING else PROMPT_TOKENS
            token_ids = [(index * 7919 + position) % 32_000 for position in range(tokens)]
            submit = wire.Submit(
                f"r{index}",
                token_ids,
                wire.Sampling(max_tokens=100_000),
                self.now_s - waiting / 200 + (index - RUNNING) / 200 if index >= RUNNING else 0.0,
            )
            request = Request(submit, promise, frozenset(), marks=marks(token_ids, "", 16))
            self.queues.enqueue(request)
            if index < RUNNING:
                self.queues.admit(request.request_id)
                request.sequence = self.cache.open(request.tokens, "")
                self.cache.reserve(request.sequence, tokens + 1000)
                request.computed = tokens
                self.draw(request)
        if halved:
            token_ids = [position % 31_991 for position in range(LONG_TOKENS)]
            long = Request(
                wire.Submit("long", token_ids, wire.Sampling(max_tokens=100), self.now_s - 1.0),
                promise,
                frozenset(),
            )
            self.queues.enqueue(long)
            self.queues.admit("long").computed = LONG_TOKENS // 2

    def draw(self, request: Request) -> None:
        request.tokens.append(7)
        request.drew(1, self.now_s)

    def step(self) -> None:
        """A decode step ends."""
        self.now_s += 0.02
        for request in self.queues.running.values():
            if request.computed + 1 < len(request.tokens):
                continue
            request.computed += 1
            self.draw(request)
            if len(request.tokens) > CONTEXT_TOKENS + 500:
                del request.tokens[CONTEXT_TOKENS + 1 :]
                request.computed = CONTEXT_TOKENS
        self.cache.version += 1

    def wait(self) -> None:
        """Nothing that was known of the cache holds any more."""
        self.now_s += 0.02
        self.cache.version += 1

    def wait_for_long(self) -> None:
        """Nothing that was told a while ago counts any more."""
        self.now_s += 2 * AHEAD_S

    def decide(self, lanes: views.Lanes, working: frozenset[str]) -> None:
        rate = None
        if self.mode not in order.FIRST_COME:
            rate = self.latency.prefill_tokens_per_s(SMS)
        state = pictures.take(
            self.queues, self.cache, LIMITS, lanes, working, rate, self.now_s, table=self.table
        )
        planner.plan(self.mode, state, self.latency, self.now_s)


def timed(decide: Callable[[], None], prepare: Callable[[], None]) -> dict[str, float]:
    seconds = []
    for _ in range(LAPS):
        prepare()
        start_s = time.perf_counter()
        decide()
        seconds.append(time.perf_counter() - start_s)
    return {"ms_p50": 1e3 * results.median(seconds), "ms_p90": 1e3 * results.quantile(seconds, 0.9)}


def measure(mode: wire.Mode, waiting: int) -> dict[str, dict[str, float]]:
    scene = Scene(mode, waiting)
    split = scene.splits[2 if len(scene.splits) > 1 else 0]
    free = views.Lanes(SMS, scene.splits, split=split)
    decode = Load.decode(RUNNING, RUNNING * CONTEXT_TOKENS)
    cut = views.Cut(Load.prefill([(2048, 0)]), scene.now_s + 1, scene.now_s + 4, split, 32, 8, 4)
    flight = views.Flight(decode, split, scene.now_s + 1, 0.08)
    busy = views.Lanes(SMS, scene.splits, flight, (cut,), split)
    half = views.Lanes(SMS, scene.splits, flight, (), split, mode=wire.Mode.MUX)
    names = frozenset(scene.queues.running)
    found = {
        "a step ended": timed(lambda: scene.decide(free, frozenset()), scene.step),
        "a step and a prefill run": timed(lambda: scene.decide(busy, names), lambda: None),
        "a prefill ended beside a step": timed(lambda: scene.decide(half, names), scene.wait),
    }
    halved = Scene(mode, waiting, halved=True)
    found["a step ended, a long prompt has begun"] = timed(
        lambda: halved.decide(free, frozenset()), halved.step
    )
    if mode not in order.FIRST_COME:
        rate = scene.latency.prefill_tokens_per_s(SMS)

        def sort() -> None:
            scene.queues.line(rate, scene.now_s)

        found["the line sorted anew"] = timed(sort, scene.queues.settle)

        def tell() -> None:
            scene.queues.ahead_of_new(scene.promise, rate, scene.now_s)

        found["what would go before a new prompt"] = timed(tell, scene.wait_for_long)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    gc.collect()
    gc.freeze()
    result: dict[str, Any] = {"benchmark": "engine/planner", "machine": machine.describe(), "laps": LAPS}
    for waiting in (32, 1000):
        result[f"{RUNNING} running, {waiting} waiting"] = {mode: measure(mode, waiting) for mode in wire.Mode}
    results.write(result, arguments.json)


if __name__ == "__main__":
    main()
