"""Do two load generators see the same server? `drift bench` and AIPerf, with the same texts at the same times.

    python -m venv AIPERF && AIPERF/bin/pip install aiperf==0.13.0
    python -m benchmarks.compat.load_generators --aiperf AIPERF/bin/aiperf \
        --json benchmarks/compat/results/load_generators.json

A node with a simulated H200 and a 34B model serves both in turns, without a prefix cache. Requests arrive as a
Poisson process in whole milliseconds; each has its own text and its own number of tokens. Both tools count what the
server's `usage` says. TTFT: from sending (AIPerf) or the due time (`drift bench`) to the first text; ITL: a request's
time from its first to its last text, over the tokens less one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import machine
from benchmarks.engine import results, served

import drift_tiny
from drift_engine.bench import preparing, records
from drift_engine.bench.servers import Server

MODEL = "drift-tiny"
PROMPT_TOKENS = (50, 1500)
OUTPUT_TOKENS = (30, 150)
RUN_TIMEOUT_S = 500.0
SHARES = {"p50": 0.5, "p90": 0.9}
AGREES = 0.03
"""What the project asked for before it measured."""

Figures = dict[str, dict[str, float]]
"""By `ttft_ms` and `itl_ms`: mean, p50 and p90."""


class Request(NamedTuple):
    at_ms: int
    prompt: str
    output: str
    """A text as long as the answer: `drift bench` reads lengths off texts."""
    output_tokens: int


async def requests(url: str, count: int, rate_rps: float, seed: int) -> list[Request]:
    dice = random.Random(seed)
    async with Server(url) as server:

        async def tokens(text: str) -> int:
            found = await server.count_tokens(MODEL, text)
            assert found is not None
            return found

        vocabulary = await preparing.calibrate(tokens)

        def words(tokens: int) -> str:
            return "".join(dice.choices(vocabulary.words, k=tokens // vocabulary.word_tokens))

        made, at_s = [], 0.0
        for _ in range(count):
            prompt, output = words(dice.randint(*PROMPT_TOKENS)), words(dice.randint(*OUTPUT_TOKENS))
            length = await tokens(output) - vocabulary.overhead_tokens
            made.append(Request(round(1000 * at_s), prompt, output, length))
            at_s += dice.expovariate(rate_rps)
    return made


def lines(path: Path, entries: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def by_drift(url: str, load: Sequence[Request], folder: Path) -> Figures:
    sessions = [
        {
            "timestamp": 1000 * one.at_ms,
            "input": one.prompt,
            "output": one.output,
            "session_id": f"session-{index}",
        }
        for index, one in enumerate(load)
    ]
    trace = lines(folder / "sessions.jsonl", sessions)
    log = folder / "tokens.jsonl"
    command = [sys.executable, "-m", "drift_cli", "bench", "--url", url, "--trace", str(trace), "--quiet"]
    run([*command, "--format", "agent-sessions", "--log", str(log)])
    answered = [record for record in records.read(log) if record.status == "ok"]
    check(answered=len(answered), tokens=sum(one.output_tokens or 0 for one in answered), load=load)
    return {
        "ttft_ms": figures([1000 * one.token_times_s[0] for one in answered]),
        "itl_ms": figures(
            [
                1000 * (one.token_times_s[-1] - one.token_times_s[0]) / (one.output_tokens - 1)
                for one in answered
                if one.output_tokens is not None
            ]
        ),
    }


def by_aiperf(program: Path, url: str, load: Sequence[Request], folder: Path) -> Figures:
    entries = [
        {"timestamp": one.at_ms, "text_input": one.prompt, "output_length": one.output_tokens} for one in load
    ]
    trace = lines(folder / "trace.jsonl", entries)
    run([str(program), "profile", *aiperf_options(url, trace, folder)])
    (export,) = folder.glob("**/profile_export.jsonl")
    found = [json.loads(line)["metrics"] for line in export.read_text().splitlines()]
    tokens = sum(round(one["output_sequence_length"]["value"]) for one in found)
    check(answered=len(found), tokens=tokens, load=load)
    return {
        "ttft_ms": figures([one["time_to_first_token"]["value"] for one in found]),
        "itl_ms": figures([one["inter_token_latency"]["value"] for one in found]),
    }


def aiperf_options(url: str, trace: Path, folder: Path) -> list[str]:
    return [
        *("--model", MODEL, "--url", url, "--endpoint-type", "completions", "--streaming"),
        *("--input-file", str(trace), "--custom-dataset-type", "mooncake_trace", "--fixed-schedule"),
        *("--tokenizer", str(drift_tiny.checkpoint_path()), "--use-server-token-count"),
        *("--extra-inputs", "ignore_eos:true", "--artifact-dir", str(folder / "aiperf")),
        *("--ui", "none", "--no-gpu-telemetry", "--no-server-metrics", "--workers-max", "1"),
    ]


def run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[:4]}: {done.stdout[-2000:]} {done.stderr[-2000:]}")


def check(*, answered: int, tokens: int, load: Sequence[Request]) -> None:
    """Raises RuntimeError where the two would be compared on different work."""
    wanted = sum(one.output_tokens for one in load)
    if (answered, tokens) != (len(load), wanted):
        raise RuntimeError(
            f"{answered} answers of {tokens} tokens, but {len(load)} of {wanted} were asked for"
        )


def figures(values: Sequence[float]) -> dict[str, float]:
    shares = {name: results.quantile(values, share) for name, share in SHARES.items()}
    return {name: round(value, 3) for name, value in {"mean": statistics.fmean(values), **shares}.items()}


def compared(rounds: Sequence[dict[str, Figures]]) -> dict[str, dict[str, float]]:
    """AIPerf's figure over ours, the median of the rounds."""
    return {
        metric: {
            name: round(
                statistics.median(one["aiperf"][metric][name] / one["drift"][metric][name] for one in rounds),
                4,
            )
            for name in ("mean", *SHARES)
        }
        for metric in ("ttft_ms", "itl_ms")
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--aiperf", type=Path, required=True, help="the program")
    parser.add_argument("--requests", type=int, default=150)
    parser.add_argument("--rate", type=float, default=2.5, help="requests per second")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    rounds: list[dict[str, Figures]] = []
    simulated: dict[str, Any] = {"sim_hardware": "h200", "sim_model": "llama-34b", "prefix_cache": False}
    with (
        served.node(model=f"embedded://{MODEL}", served_model_name=MODEL, device="sim", **simulated) as node,
        tempfile.TemporaryDirectory() as scratch,
    ):
        load = asyncio.run(requests(node.url, asked.requests, asked.rate, asked.seed))
        for number in range(asked.rounds):
            folder = Path(scratch, str(number))
            folder.mkdir()
            turns = {
                "drift": lambda folder=folder: by_drift(node.url, load, folder),
                "aiperf": lambda folder=folder: by_aiperf(asked.aiperf, node.url, load, folder),
            }
            order = sorted(turns, reverse=bool(number % 2))
            rounds.append({name: turns[name]() for name in order})
            print(json.dumps(rounds[-1]), flush=True)
    ratios = compared(rounds)
    results.write(
        {
            "benchmark": "load_generators",
            **machine.describe(),
            "aiperf": version(asked.aiperf),
            "workload": {"requests": len(load), "rate_rps": asked.rate, "seed": asked.seed, **simulated},
            "rounds": rounds,
            "aiperf_over_drift": ratios,
            "target": AGREES,
            "agree": all(abs(ratio - 1) <= AGREES for one in ratios.values() for ratio in one.values()),
        },
        asked.json,
    )


def version(program: Path) -> str:
    query = "import importlib.metadata as m; print(m.version('aiperf'))"
    done = subprocess.run(
        [program.parent / "python", "-c", query], capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout.strip()


if __name__ == "__main__":
    main()
