"""Drift under traffic on a test cluster, with a fault every two minutes; answers are compared with a quiet node's.

    python -m benchmarks.soak --minutes 60 --json benchmarks/soak/results/soak.json

Needs what tests/cluster needs, and libfaketime for the faults of clocks (they are left out without it). Before it
begins, one node on this machine that nothing disturbs answers every question: greedy answers must be the same, text,
length and reason of their end. The log goes beside the result, as JSON lines; so do a table and a picture.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from benchmarks import machine
from benchmarks.engine import results
from benchmarks.soak import asking, bed, faults, report, summary, traffic
from benchmarks.soak.asking import Answer, Client
from benchmarks.soak.bed import Bed
from benchmarks.soak.faults import Fault
from benchmarks.soak.looks import Injected, Line, Request
from benchmarks.soak.watch import Watch

import running_up
from drift_engine.bench import preparing, traces
from drift_engine.bench.preparing import Wishes
from drift_engine.bench.servers import Server
from drift_engine.bench.traces import Arrival

TRACES = machine.ROOT / "tests" / "support" / "traces"
FIRST_S = 60.0
"""Of traffic before the first fault."""
AT_ONCE = 4
"""Questions to the reference."""
MOST_OPEN = 8
"""Requests at a time. Those that would come then are left out: on a machine that does other things, too, the rate is
less."""
LATE_S = 1.0
LAST_S = 180.0
"""For answers that are under way at the end."""


class Log:
    """Lines in memory, and in a file at once: a run that is stopped has them."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb")
        self.lines: list[Line] = []

    def add(self, line: Line) -> None:
        self.lines.append(line)
        self._file.write(msgspec.json.encode(line) + b"\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class Reference(msgspec.Struct, frozen=True):
    """Questions as they are sent, with their right answers."""

    bodies: list[bytes]
    answers: list[Answer]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument(
        "--every", type=float, default=120.0, metavar="S", help="one fault in so many seconds"
    )
    parser.add_argument(
        "--rate", type=float, default=0.4, metavar="RPS", help="requests a second, on average"
    )
    parser.add_argument("--questions", type=int, default=120, help="different ones")
    parser.add_argument("--agents", type=Path, default=TRACES / "agent_sessions_piece.jsonl.gz")
    parser.add_argument("--conversations", type=Path, default=TRACES / "azure2023_conversation_piece.csv")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", metavar="FAULT", help="of the faults; may be repeated")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--again", action="store_true", help="read the log of that result once more; no soak")
    options = parser.parse_args()
    if options.again:
        tell(msgspec.json.decode(options.json.read_bytes()), read(log_of(options.json)), options.json)
        return
    chosen = tuple(
        fault
        for fault in faults.FAULTS
        if fault.name in (options.only or [fault.name])
        and (bed.clocks_can_step() or not fault.name.startswith("clock-"))
    )
    arrivals = traffic.questions(
        traces.read(options.agents), traces.read(options.conversations), options.questions
    )
    reference = asyncio.run(answered(arrivals, options.seed))
    told = machine.describe()
    seconds = 60 * options.minutes
    log = Log(log_of(options.json))
    with contextlib.closing(log), bed.made() as made:
        print(f"soaking for {options.minutes:g} min", flush=True)
        plan = faults.order(chosen, int((seconds - FIRST_S) // options.every), random.Random(options.seed))
        asyncio.run(soak(made, reference, plan, log, options.rate, options.every, seconds, options.seed))
    told |= {
        "what": {
            "seconds": seconds,
            "nodes": bed.NODES,
            "routers": bed.ROUTERS,
            "model": bed.MODEL,
            "rate_rps": options.rate,
            "questions": len(reference.bodies),
            "every_s": options.every,
            "seed": options.seed,
            "faults": {fault.name: fault.sentence for fault in chosen},
            "left_out": [fault.name for fault in faults.FAULTS if fault not in chosen],
        },
    }
    tell(told, log.lines, options.json)


def tell(told: dict[str, Any], lines: Sequence[Line], path: Path) -> None:
    """The result, its table and its picture."""
    found = summary.summarize(lines, bed.NODES, bed.ROUTERS, told["what"]["seconds"])
    results.write({**told, "summary": msgspec.to_builtins(found)}, path)
    report.write(found, lines, path.with_suffix(".md"), path.with_suffix(".svg"))


def log_of(result: Path) -> Path:
    return result.with_suffix(".jsonl")


def read(log: Path) -> list[Line]:
    decoder = msgspec.json.Decoder(Line)
    return [decoder.decode(line) for line in log.read_bytes().splitlines()]


async def answered(arrivals: Sequence[Arrival], seed: int) -> Reference:
    """By a node of its own that nobody disturbs."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        file = machine.ROOT / "examples" / "drift-tiny.yaml"
        fleet = stack.enter_context(running_up.started(file, XDG_RUNTIME_DIR=folder))
        async with Server(fleet.url) as server, asking.session() as session:
            model = await server.model(bed.MODEL)
            plan, vocabulary = await preparing.plan(server, model, arrivals, Wishes(ignore_eos=True))
            writer = preparing.BodyWriter(model, vocabulary, chat=False, ignore_eos=True, seed=seed)
            bodies = [writer.body(traffic.bounded(each.arrival)) for each in plan.planned]
            client, places = Client(session, fleet.url, {}), asyncio.Semaphore(AT_ONCE)

            async def right(body: bytes) -> Answer:
                async with places:
                    asked = await client.ask(body)
                assert asked.answer is not None, asked.troubles
                return asked.answer

            began_s = time.monotonic()
            answers = await asyncio.gather(*map(right, bodies))
            print(f"{len(answers)} right answers in {time.monotonic() - began_s:.0f} s", flush=True)
    return Reference(bodies, answers)


async def soak(
    made: Bed,
    reference: Reference,
    plan: Sequence[Fault],
    log: Log,
    rate_rps: float,
    every_s: float,
    seconds: float,
    seed: int,
) -> None:
    start_s = time.monotonic()

    def clock() -> float:
        return round(time.monotonic() - start_s, 2)

    watch = asyncio.create_task(Watch(made, clock, log.add, log.add).run())
    harm = asyncio.create_task(harming(made, plan, log, clock, every_s, random.Random(seed)))
    try:
        async with asking.session() as session, asyncio.timeout(seconds + LAST_S):
            client = Client(session, made.url, made.headers)
            places = asyncio.Semaphore(MOST_OPEN)

            async def one(question: int) -> None:
                at_s = clock()
                try:
                    asked = await client.ask(reference.bodies[question])
                finally:
                    places.release()
                wrong = asked.answer is not None and asked.answer != reference.answers[question]
                log.add(
                    Request(
                        at_s,
                        round(asked.seconds, 3),
                        question,
                        asked.troubles,
                        lost=asked.answer is None,
                        wrong=wrong,
                        ttft_s=None if asked.ttft_s is None else round(asked.ttft_s, 3),
                        got=repr(asked.answer) if wrong else "",
                    )
                )

            async with asyncio.TaskGroup() as tasks:
                for at_s, question in traffic.times(len(reference.bodies), rate_rps, seconds, seed):
                    if clock() > at_s + LATE_S:
                        continue
                    await asyncio.sleep(max(0.0, at_s - clock()))
                    await places.acquire()
                    tasks.create_task(one(question))
                await asyncio.sleep(max(0.0, seconds - clock()))
        assert not watch.done(), watch.exception()
        await harm
    finally:
        for task in (harm, watch):
            task.cancel()
        await asyncio.gather(harm, watch, return_exceptions=True)


async def harming(
    made: Bed,
    plan: Sequence[Fault],
    log: Log,
    clock: Callable[[], float],
    every_s: float,
    draw: random.Random,
) -> None:
    """One fault after the other, each at its time."""
    for place, fault in enumerate(plan):
        await asyncio.sleep(max(0.0, FIRST_S + place * every_s - clock()))
        at_s, victim, failed = clock(), "", ""
        try:
            with contextlib.ExitStack() as stack:
                try:
                    victim = await asyncio.to_thread(stack.enter_context, fault.inject(made, draw))
                    at_s = clock()
                    await asyncio.sleep(fault.hold_s)
                finally:
                    await asyncio.to_thread(stack.close)
        except Exception as error:  # a fault that can't be done is told, and the others go on
            failed = f"{type(error).__name__}: {error}"
        log.add(Injected(at_s, fault.name, victim, clock() if fault.hold_s else at_s, failed))
        print(f"{at_s:7.1f} s  {fault.name}  {victim}  {failed}", flush=True)


if __name__ == "__main__":
    main()
