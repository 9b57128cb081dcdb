"""What each mode makes of the same moment: prompts arrive while requests decode.

    python -m benchmarks.engine.modes --json benchmarks/engine/results/modes.json

Eight requests decode, then four prompts of 512 tokens come at once. Reported per mode and TBT target: how fast the
prompts are prefilled, and the decoding requests' TBT until they are. `fused` takes the largest chunk that it predicts
to keep the target, so its chunk is tuned for each cell. Modes take turns within a round; cells give medians over
rounds.
"""

from __future__ import annotations

import argparse
import gc
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.engine import local_core, results, shapes

import drift_tiny
from drift_engine import wire
from drift_engine.options import NodeOptions, SloOptions

MODES = (wire.Mode.FUSED, wire.Mode.MUX, wire.Mode.AUTO)
DECODING, CONTEXT_TOKENS = 8, 200
PROMPTS, PROMPT_TOKENS = 4, 512
SETTLING_TOKENS = 20
RUN_TIMEOUT_S = 120.0


def measure(model: Path, mode: wire.Mode, tbt_ms: float) -> dict[str, float]:
    options = NodeOptions(
        model=str(model), mode=mode, slo=SloOptions(tbt_ms=tbt_ms), device="cpu", kv_bytes=512 << 20
    )
    core = local_core.LocalCore(options, model)
    try:
        return _moment(core)
    finally:
        core.close()
        del core
        gc.collect()


def _moment(core: local_core.LocalCore) -> dict[str, float]:
    draws = random.Random(1)
    times: dict[str, list[float]] = {}
    deadline_s = time.monotonic() + RUN_TIMEOUT_S

    def submit(tokens: int, answer: int) -> str:
        name = core.submit([draws.randrange(256) for _ in range(tokens)], answer)
        times[name] = []
        return name

    def step() -> None:
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"the prompts were not prefilled within {RUN_TIMEOUT_S:.0f} s")
        outputs = core.step()
        now_s = time.perf_counter()
        for output in outputs:
            times[output.request_id].append(now_s)

    decoding = [submit(CONTEXT_TOKENS, 1000) for _ in range(DECODING)]
    while any(len(times[name]) < SETTLING_TOKENS for name in decoding):
        step()
    alone_s = [b - a for name in decoding for a, b in zip(times[name][5:], times[name][6:], strict=False)]
    start_s = time.perf_counter()
    prompts = [submit(PROMPT_TOKENS, 1) for _ in range(PROMPTS)]
    while not all(times[name] for name in prompts):
        step()
    end_s = max(times[name][0] for name in prompts)
    beside_s = [
        b - a
        for name in decoding
        for a, b in zip(times[name], times[name][1:], strict=False)
        if b > start_s and a < end_s
    ]
    stats = core.mailbox.stats
    assert stats is not None
    active_s = stats.activity_s_total
    met = active_s[wire.Activity.FUSED] + active_s[wire.Activity.MUX]
    return {
        "prefill_tokens_per_s": PROMPTS * PROMPT_TOKENS / (end_s - start_s),
        "ttft_ms_mean": 1e3 * sum(times[name][0] - start_s for name in prompts) / PROMPTS,
        "tbt_alone_ms_p50": 1e3 * results.median(alone_s),
        "tbt_ms_p50": 1e3 * results.median(beside_s),
        "tbt_ms_p99": 1e3 * results.quantile(beside_s, 0.99),
        "decode_tokens_per_s": len(beside_s) / (end_s - start_s),
        "mux_share": active_s[wire.Activity.MUX] / met if met else 0.0,
    }


def compare(model: Path, targets_ms: list[float], rounds: int, modes: Sequence[wire.Mode]) -> dict[str, Any]:
    """By TBT target and mode."""
    cells: dict[str, Any] = {}
    for target_ms in targets_ms:
        runs: dict[str, list[dict[str, float]]] = {mode: [] for mode in modes}
        for _ in range(rounds):
            for mode in modes:
                runs[mode].append(measure(model, mode, target_ms))
        cells[f"tbt {target_ms:g} ms"] = {
            mode: {key: results.median([run[key] for run in found]) for key in found[0]}
            for mode, found in runs.items()
        }
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--modes", type=wire.Mode, nargs="+", default=MODES)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result: dict[str, Any] = {
        "benchmark": "engine/modes",
        "machine": machine.describe(),
        "rounds": arguments.rounds,
        "drift-tiny": compare(drift_tiny.checkpoint_path(), [15, 40], arguments.rounds, arguments.modes),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = shapes.write(Path(folder), shapes.build(shapes.LLAMA_120M))
        gc.collect()
        result["llama 117M, float32"] = compare(path, [100, 150, 250], arguments.rounds, arguments.modes)
    results.write(result, arguments.json)


if __name__ == "__main__":
    main()
