"""What a routing decision costs: CPU of `choose` with 8 and with 1,000 nodes, a few of which hold a part of a prompt.

python -m benchmarks.router.deciding --json benchmarks/router/results/deciding.json
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from benchmarks import machine
from benchmarks.engine import results

from drift_router.policies.choosing import choose
from drift_router.snapshots import Ask, IndexState, Node, Policy

ASK = Ask(9000, {0: 512, 1: 4096, 5: 5000}, 12345, 1.0, 0.0001, 0.05)
REPEATS = 40


def nodes(count: int) -> tuple[Node, ...]:
    return tuple(
        Node(
            f"node-{slot}",
            slot,
            prefill_tokens_per_s=40_000.0 + slot,
            queued_tokens=3000 * (slot % 7),
            in_flight=3,
            tbt_s=0.02,
            kv_usage=0.3,
            kv_tokens=1_000_000,
            assigned_tokens=100_000.0 + slot,
            index=IndexState.EXACT,
        )
        for slot in range(count)
    )


def measure(policy: Policy, seen: tuple[Node, ...], explain: bool) -> dict[str, float]:
    """In us: the least and the middle of rounds. The least is what it costs where nobody else uses the core."""
    calls = max(1, 2000 // len(seen))
    rounds = []
    for _ in range(REPEATS):
        start_s = time.process_time()
        for turn in range(calls):
            choose(policy, ASK, seen, 0.5, turn=turn, explain=explain)
        rounds.append((time.process_time() - start_s) / calls * 1e6)
    return {"least_us": round(min(rounds), 2), "median_us": round(results.median(rounds), 2)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found: dict[str, dict[str, dict[str, float]]] = {}
    for count in (8, 1000):
        seen = nodes(count)
        found[f"{count} nodes"] = {policy.value: measure(policy, seen, False) for policy in Policy}
        found[f"{count} nodes"]["cache-aware, explained"] = measure(Policy.CACHE_AWARE, seen, True)
    results.write(
        {"benchmark": "router/deciding", "machine": machine.describe(), "cpu": found}, arguments.json
    )


if __name__ == "__main__":
    main()
