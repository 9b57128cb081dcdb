"""The headline's requests through Dynamo's offline simulator, with our cost model as its timing.

    python -m venv DYNAMO
    DYNAMO/bin/pip install --no-deps ai-dynamo==1.6.1 ai-dynamo-runtime==1.6.1
    DYNAMO/bin/pip install numpy typing_extensions
    python -m benchmarks.simulation.dynamo_peer --python DYNAMO/bin/python --traces FOLDER --json RESULT.json

Equal: the arrivals, eight workers, KV tokens a worker, seconds of a prefill by its new tokens and of a decode step by
its rows and context (from our model of an H200, its loop's overhead in both), 256 rows, the link of split roles.
Not equal: its table of prefills knows no tokens that are there already, so later chunks and reused prefixes cost
nothing to look at; how it puts prefill and decode together in a pass is its own; its pages have 64 tokens. Its log
has a request's mean gap and not its gaps, so what is compared is `by_mean_gap`; the P99 of all gaps stands beside it.
Each way is replayed with several chunk budgets, and the one by which most requests are good is told.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from benchmarks import machine
from benchmarks.engine import results
from benchmarks.simulation import headline

from drift_engine.bench import metrics, shaping, traces
from drift_engine.bench.records import RequestRecord
from drift_engine.bench.traces import Arrival
from drift_engine.hardware import profiles, shapes
from drift_engine.hardware.roofline import Roofline
from drift_engine.latency.loads import Load
from drift_engine.simulation.specs import OVERHEAD_S

REPLAY = Path(__file__).with_name("dynamo_replay.py")
DEADLINE_S = 600

BLOCK_TOKENS = 64
"""Its default."""
MAX_RUNNING = 256
CHUNKS_TOKENS = (256, 512, 1024, 2048, 8192)
"""The last one is its default, and too much for gaps of 25 ms."""
MOST_TOKENS = 131_072
POINTS = 160
"""Of each axis of its tables; between them it interpolates."""

PREFIX_TOKENS = 512
"""Of a block of recorded prefixes (Mooncake)."""


class Way(NamedTuple):
    router: str
    prefill: int | None = None
    """Workers that only prefill; the others only decode."""


WAYS = {
    "round robin": Way("round_robin"),
    "KV-routed": Way("kv_router"),
    "5P3D": Way("kv_router", 5),
    "4P4D": Way("kv_router", 4),
}


def timing(path: Path, model: Roofline) -> None:
    """Its tables of milliseconds, from our model on the whole GPU."""
    sms, kv_tokens = model.hardware.sms, model.shape.kv_tokens(model.hardware)
    new = np.unique(np.geomspace(1, MOST_TOKENS, POINTS).round())
    held = np.linspace(0, kv_tokens, POINTS)
    context = np.geomspace(1, MOST_TOKENS, POINTS)

    def ms(load: Load) -> float:
        return 1e3 * (model.pass_s(load, sms) + OVERHEAD_S)

    np.savez(
        path,
        prefill_isl=new,
        prefill_ttft_ms=[ms(Load.prefill([(int(tokens), 0)])) for tokens in new],
        decode_active_kv_tokens=held,
        decode_context_length=context,
        decode_itl=[
            [ms(Load.decode(min(MAX_RUNNING, max(1, round(kv / each))), int(kv))) for each in context]
            for kv in held
        ],
    )


def write_trace(path: Path, arrivals: Sequence[Arrival]) -> None:
    """As Mooncake's traces are written. A prompt without recorded blocks shares none."""
    own = 1 + max((block for arrival in arrivals for block in arrival.block_ids), default=0)
    with path.open("w") as file:
        for arrival in arrivals:
            blocks = arrival.block_ids
            if arrival.block_tokens != PREFIX_TOKENS:
                count = -(-arrival.prompt_tokens // PREFIX_TOKENS)
                blocks, own = tuple(range(own, own + count)), own + count
            row = {
                "timestamp": arrival.at_s * 1e3,
                "input_length": arrival.prompt_tokens,
                "output_length": arrival.output_tokens,
                "hash_ids": list(blocks),
            }
            file.write(json.dumps(row) + "\n")


def replay(python: Path, folder: Path, way: Way, chunk_tokens: int, model: Roofline) -> dict[str, Any]:
    engine: dict[str, Any] = {
        "block_size": BLOCK_TOKENS,
        "num_gpu_blocks": model.shape.kv_tokens(model.hardware) // BLOCK_TOKENS,
        "max_num_seqs": MAX_RUNNING,
        "max_num_batched_tokens": chunk_tokens,
        "timing_model": {
            "type": "external",
            "provider": "dynamo_profile",
            "config": {"path": str(folder / "timing.npz")},
        },
    }
    if way.prefill is not None:
        engine["kv_transfer_bandwidth"] = headline.LINK_GBIT_PER_S / 8
        engine["kv_transfer_bytes_per_token"] = model.shape.kv_bytes_per_token
    asked = {
        "trace": str(folder / "trace.jsonl"),
        "block_tokens": PREFIX_TOKENS,
        "log": str(folder / "log.jsonl"),
        "workers": headline.NODES,
        "prefill_workers": way.prefill,
        "decode_workers": None if way.prefill is None else headline.NODES - way.prefill,
        "router": way.router,
        "engine": engine,
    }
    done = subprocess.run(
        [python, REPLAY], input=json.dumps(asked), capture_output=True, text=True, timeout=DEADLINE_S
    )
    if done.returncode:
        raise SystemExit(f"the replay ended with {done.returncode}: {done.stderr[-2000:]}")
    said = json.loads(done.stdout)
    with (folder / "log.jsonl").open() as log:
        records = [record(index, json.loads(line)) for index, line in enumerate(log)]
    return {**figures(records), "gap_p99_ms": said["p99_itl_ms"], "gpu_s_all": said["gpu_hours"] * 3600}


def record(index: int, told: dict[str, Any]) -> RequestRecord:
    """Of its log, as ours: the first token, and all others at the time of the last."""
    at_s, tokens = told["arrival_time_ms"] / 1e3, int(told["output_length"])
    first_s, last_s = (told[name] / 1e3 - at_s for name in ("first_token_ms", "last_token_ms"))
    return RequestRecord(
        index=index,
        scheduled_s=at_s,
        due_s=at_s,
        token_times_s=(first_s, last_s) if tokens > 1 else (first_s,),
        token_counts=(1, tokens - 1) if tokens > 1 else (1,),
        end_s=last_s,
        status="ok" if told["terminal_status"] == "completed" else "failed",
        prompt_tokens=int(told["input_length"]),
        cached_tokens=int(told["reused_input_tokens"] or 0),
        output_tokens=tokens,
    )


def figures(records: Sequence[RequestRecord]) -> dict[str, Any]:
    found = metrics.summarize(records, headline.SLO)
    by_mean = found["by_mean_gap"]
    assert by_mean is not None
    return {
        "attainment_by_mean_gap": by_mean.attainment,
        "goodput_rps_by_mean_gap": by_mean.goodput_rps,
        "ttft_p50_ms": found["ttft_ms"].p50,
        "ttft_p99_ms": found["ttft_ms"].p99,
        "tpot_p99_ms": found["tpot_ms"].p99,
        "cached_share": found["cached_share"],
        "requests": found["requests"],
        "failed": found["failed"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", type=Path, required=True, help="of the environment with ai-dynamo")
    parser.add_argument("--traces", type=Path, required=True, help="folder with the recorded traces")
    parser.add_argument("--only", default=",".join(headline.FILES), help="traces")
    parser.add_argument("--scales", help="times the recorded rate, instead of the table's")
    parser.add_argument(
        "--requests", type=int, default=headline.REQUESTS, help="the first ones of each trace"
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    stamp = machine.describe()
    model = Roofline(profiles.named(headline.HARDWARE), shapes.read(headline.MODEL, 1))
    cells: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        timing(folder / "timing.npz", model)
        for name in arguments.only.split(","):
            trace = traces.read(arguments.traces / headline.FILES[name])
            for scale in headline.scales(name, arguments.scales):
                shape = shaping.Shape(requests=arguments.requests, spread=True, rate_scale=scale)
                write_trace(folder / "trace.jsonl", shaping.shape(trace, shape))
                cell = cells[f"{name}, {scale:g}x"] = {}
                for title, way in WAYS.items():
                    tried = {
                        chunk: replay(arguments.python, folder, way, chunk, model) for chunk in CHUNKS_TOKENS
                    }
                    best = max(tried, key=lambda chunk: tried[chunk]["attainment_by_mean_gap"])
                    cell[title] = {
                        "chunk_tokens": best,
                        **tried[best],
                        "attainment_of_chunks": {
                            chunk: each["attainment_by_mean_gap"] for chunk, each in tried.items()
                        },
                    }
                    print(
                        f"{name} {scale:g}x {title}: {cell[title]['attainment_by_mean_gap']:.1%} with {best}"
                    )
    results.write(
        {
            "benchmark": "simulation/dynamo_peer",
            "machine": stamp,
            "peer": "ai-dynamo 1.6.1",
            "slo": headline.PROMISE,
            "requests": arguments.requests,
            "cells": cells,
        },
        arguments.json,
    )


if __name__ == "__main__":
    main()
