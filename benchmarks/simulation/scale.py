"""Router and levers before a thousand nodes, a tenth of which die at once: what deciding costs, what is sent, and
when the promise is kept again.

    python -m benchmarks.simulation.scale --json benchmarks/simulation/results/scale.json

One router and one operator, as code and in virtual time: the CPU is this machine's, without sockets. Requests of one
length, half of them behind one of 64 stems of 512 tokens, at a Poisson process.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.engine import results

from drift_cli.steering import Levers
from drift_cli.systems import Loss, System
from drift_engine.bench import metrics
from drift_engine.bench.results import Slo, Workload
from drift_engine.bench.traces import Arrival
from drift_engine.simulation.studies import Study

SLO = Slo(ttft_ms=400, tbt_ms=30, attainment_target=0.95)
PROMPT_TOKENS, OUTPUT_TOKENS, BLOCK_TOKENS = 1536, 60, 512
STEMS = 64


def arrivals(rate_rps: float, seconds: float) -> list[Arrival]:
    draw, at_s, made = random.Random(1), 0.0, list[Arrival]()
    while (at_s := at_s + draw.expovariate(rate_rps)) < seconds:
        own = 1000 + 3 * len(made)
        stem = draw.randrange(2 * STEMS)
        blocks = (stem if stem < STEMS else own, own + 1, own + 2)
        made.append(
            Arrival(
                len(made),
                at_s,
                PROMPT_TOKENS,
                OUTPUT_TOKENS,
                block_ids=tuple(BLOCK_TOKENS * block for block in blocks),
                block_tokens=BLOCK_TOKENS,
            )
        )
    return made


def measure(nodes: int, rate_rps: float, seconds: float) -> dict[str, Any]:
    loss_s = seconds / 2
    lost = range(0, nodes, 10)
    system = System(
        slo=SLO, moved=Levers.SPLIT_WEIGHTS, nodes=nodes, losses=[Loss(loss_s, node) for node in lost]
    )
    study = Study(
        arrivals=arrivals(rate_rps, seconds),
        workload=Workload(trace="", format="synthetic", arrivals="poisson"),
        slo=SLO,
        model="llama-8b",
        hardware="h200",
        nodes=nodes,
        dispatcher=system.dispatcher,
        attach=system.attach,
    )
    start_s = time.process_time()
    outcome = study.run()
    cpu_s = time.process_time() - start_s
    account, result = system.account, outcome.result
    missed_s = [
        record.due_s
        for record in outcome.records
        if record.due_s > loss_s and not metrics.both_met(record, SLO)
    ]
    return {
        "nodes": nodes,
        "lost": len(lost),
        "requests": result.requests,
        "failed": result.failed,
        "simulated_s": round(result.duration_s, 2),
        "cpu_s": round(cpu_s, 1),
        "attainment": result.attainment,
        "decisions_per_cpu_s": round(account.routed / account.routing_cpu_s),
        "index_bytes": account.index_bytes,
        "levers_cpu_s_per_look": round(account.levers_cpu_s / max(1, account.looks), 4),
        "set_points_per_look": round(account.set_points / max(1, account.looks), 1),
        "moves": account.moves,
        "resumed": account.routed - result.requests,
        "worst_gap_ms": result.tbt_ms.max,
        "last_missed_after_loss_s": round(max(missed_s) - loss_s, 2) if missed_s else 0.0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=400.0, metavar="RPS")
    parser.add_argument("--seconds", type=float, default=6.0, help="over which requests arrive")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = {
        "benchmark": "simulation/scale",
        "machine": machine.describe(),
        "run": measure(arguments.nodes, arguments.rate, arguments.seconds),
    }
    results.write(found, arguments.json)


if __name__ == "__main__":
    main()
