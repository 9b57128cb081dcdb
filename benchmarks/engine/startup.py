"""From typing `drift up` to the first answered request, dependencies installed.

python benchmarks/engine/startup.py --json benchmarks/engine/results/startup.json
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from benchmarks import machine
from benchmarks.engine import results

from drift_operator.local import ports

DEADLINE_S = 120.0


def first_answer_s(port: int) -> tuple[float, str]:
    body = {
        "model": "drift-tiny",
        "messages": [{"role": "user", "content": "What is Drift?"}],
        "max_tokens": 32,
    }
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    start_s = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "drift_cli", "up", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while time.perf_counter() - start_s < DEADLINE_S:
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    text = json.load(answer)["choices"][0]["message"]["content"]
                    return time.perf_counter() - start_s, text
            except OSError:
                time.sleep(0.05)
        raise RuntimeError(f"no answer within {DEADLINE_S} s")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    measured = [first_answer_s(ports.free("127.0.0.1")[0]) for _ in range(arguments.rounds)]
    seconds = [s for s, _ in measured]
    results.write(
        {
            "benchmark": "engine/startup",
            "machine": machine.describe(),
            "answer": measured[0][1],
            "first_answer_s": {"median": results.median(seconds), "max": max(seconds)},
            "rounds_s": seconds,
        },
        arguments.json,
    )


if __name__ == "__main__":
    main()
