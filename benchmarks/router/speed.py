"""What a router costs, side by side: CPU per request and per chunk, added time, memory of open streams.

    python -m benchmarks.router.speed --peers-venv PEERS --json benchmarks/router/results/speed.json
    python -m benchmarks.router.speed --table benchmarks/router/results/speed.json

All routers are up at once, each pinned to core 0; dummy nodes and load, in C, have core 1. Load goes to one router at
a time, in turns, and the median of the rounds counts. CPU is user and system time of a router's processes. Every
router has two nodes. Bodies are 64 conversations with 4 system prompts; the last message is new in each request. Ours
runs with metrics, a key with limits and breakers; the others as they come. `peers.py` says how to install those of
pip.

Streams that are open together are bounded by the files that one process may open, two for each stream.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import machine
from benchmarks.engine import results
from benchmarks.router import dummies, peers

ONCE = "json"
BURST = "stream 32 0 0"
PACED = "stream 100 5000 10000"
HELD = "stream 2 1000 300000000"
NODES = 2
CHUNKS = 32
OPEN_STREAMS = (1_000, 10_000)
SPARE_FILES = 2_000
"""Of the limit: connections that a router keeps from before count too."""
STALL_US = 30_000.0
"""Linux delays acknowledgements by 40 ms; who waits for one shows in first tokens."""


class Scenario(NamedTuple):
    answer: str
    """Of the nodes."""
    body_bytes: int
    load: str
    """As `generate.c` says, with the seconds to fill in."""
    seconds: float


SCENARIOS = {
    "1 KB": Scenario(ONCE, 1_024, "closed 32 {}", 2.5),
    "16 KB": Scenario(ONCE, 16_384, "closed 32 {}", 2.5),
    "48 KB": Scenario(ONCE, 49_152, "closed 32 {}", 2.5),
    "burst": Scenario(BURST, 1_024, "closed 32 {}", 2.5),
    "200 requests/s": Scenario(ONCE, 1_024, "open 16 {} 200", 4.0),
    "60 streams/s": Scenario(PACED, 1_024, "open 128 {} 60", 4.0),
}


class Setup(NamedTuple):
    folder: Path
    python: Path | None
    upstream: dummies.Upstream
    requests: dict[tuple[int, bool], Path]

    def bodies(self, scenario: Scenario) -> Path:
        return self.requests[scenario.body_bytes, scenario.answer != ONCE]


def load(setup: Setup, router: peers.Running, scenario: Scenario, share: float) -> dict[str, Any]:
    setup.upstream.answer(scenario.answer)
    how = scenario.load.format(f"{scenario.seconds * share:g}")
    before_s = router.cpu_s()
    found = dummies.generate(setup.folder, router.port, setup.bodies(scenario), how)
    cpu_us = (router.cpu_s() - before_s) * 1e6
    figures = {
        "requests": found["requests"],
        "requests_per_s": found["requests"] / found["seconds"],
        "failed": found["failed"] + found["unfinished"],
        "cpu_us_per_request": cpu_us / max(1, found["requests"]),
        "latency_us_p50": found["latency_us"]["p50"],
        "latency_us_p99": found["latency_us"]["p99"],
    }
    if scenario.answer != ONCE:
        figures["cpu_us_per_chunk"] = cpu_us / max(1, found["chunks"])
        figures["first_us_p50"] = found["first_us"]["p50"]
        figures["first_us_p99"] = found["first_us"]["p99"]
        figures["relay_us_p50"] = found["relay_us"]["p50"]
        figures["relay_us_p99"] = found["relay_us"]["p99"]
    if "error" in found:
        figures["error"] = found["error"]
    return figures


def rounds(
    setup: Setup, routers: dict[str, peers.Running], names: Sequence[str], count: int, share: float
) -> dict[str, dict[str, Any]]:
    """Each router's scenarios, every figure the median of its rounds."""
    taken: dict[str, dict[str, list[dict[str, Any]]]] = {
        router: {name: [] for name in names} for router in routers
    }
    order = list(routers)
    for _ in range(count):
        for name in names:
            for router in order:
                try:
                    figures = load(setup, routers[router], SCENARIOS[name], share)
                except (RuntimeError, KeyError) as error:
                    figures = {"error": str(error)}
                taken[router][name].append(figures)
                print(f"{name:>16} {router:28}", _line(figures), file=sys.stderr, flush=True)
        order = order[1:] + order[:1]
    return {
        router: {name: middle(runs) for name, runs in by_name.items()} for router, by_name in taken.items()
    }


def middle(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    good = [run for run in runs if "requests" in run]
    told: dict[str, Any] = (
        {
            figure: round(results.median([run[figure] for run in good]), 2)
            for figure in good[0]
            if figure != "error"
        }
        if good
        else {}
    )
    told["failed"] = sum(run["failed"] for run in good)
    if errors := sorted({run["error"] for run in runs if "error" in run}):
        told["errors"] = errors
    return told


def memory(setup: Setup, router: peers.Running, counts: Sequence[int]) -> list[dict[str, Any]]:
    """Of a fresh process, after some streams have come and gone."""
    bodies = setup.requests[1_024, True]
    setup.upstream.answer(BURST)
    dummies.generate(setup.folder, router.port, bodies, "closed 32 1")
    setup.upstream.answer(HELD)
    idle = router.resident_bytes()
    found = []
    for count in counts:
        with dummies.holding(setup.folder, router.port, bodies, count, 30) as held:
            full = router.resident_bytes()
        found.append(
            {
                "streams": held,
                "wished": count,
                "idle_mb": round(idle / 1e6, 1),
                "resident_mb": round(full / 1e6, 1),
                "kb_per_stream": round((full - idle) / max(1, held) / 1e3, 2),
            }
        )
        time.sleep(1)
    return found


def measure(setup: Setup, arguments: argparse.Namespace) -> dict[str, Any]:
    commands = {name: make for name, make in peers.ROUTERS.items() if _wanted(name, arguments.routers)}
    told: dict[str, Any] = {"unavailable": {}}
    scenarios = [name for name in SCENARIOS if _wanted(name, arguments.only)]
    share, count = (0.3, 1) if arguments.quick else (1.0, arguments.rounds)
    if scenarios:
        with contextlib.ExitStack() as up:
            routers = {peers.DIRECT: peers.Running(setup.upstream.ports[0], None)}
            for name, command in commands.items():
                try:
                    routers[name] = up.enter_context(_running(setup, name, command))
                except peers.UnavailableError as reason:
                    told["unavailable"][name] = str(reason)
            told["commands"] = {name: router.command for name, router in routers.items() if router.command}
            told["scenarios"] = rounds(setup, routers, scenarios, count, share)
    if _wanted("memory", arguments.only):
        limit = (resource.getrlimit(resource.RLIMIT_NOFILE)[1] - SPARE_FILES) // 2
        wished = [min(streams, limit) for streams in OPEN_STREAMS]
        told["memory"] = {}
        for name, command in commands.items():
            setup.upstream.answer(ONCE)
            try:
                with _running(setup, name, command) as router:
                    told["memory"][name] = memory(setup, router, wished[:1] if arguments.quick else wished)
            except (peers.UnavailableError, RuntimeError) as reason:
                told["unavailable"][name] = str(reason)
                continue
            print(f"{'memory':>16} {name:28}", told["memory"][name], file=sys.stderr, flush=True)
    return told


def targets(told: dict[str, Any]) -> list[dict[str, Any]]:
    """Ours, which were set before anything was measured."""
    scenarios, held = told.get("scenarios", {}), told.get("memory", {}).get(peers.OURS, [])
    ours, direct = scenarios.get(peers.OURS, {}), scenarios.get(peers.DIRECT, {})

    def of(name: str, figure: str) -> float | None:
        found: float | None = ours.get(name, {}).get(figure)
        return found

    def added(name: str, figure: str) -> float | None:
        mine, base = of(name, figure), direct.get(name, {}).get(figure)
        return None if mine is None or base is None else round(mine - base, 1)

    asked = [
        ("CPU per request at 1 KB, us", 60.0, of("1 KB", "cpu_us_per_request")),
        ("CPU per request at 16 KB, us", 100.0, of("16 KB", "cpu_us_per_request")),
        ("CPU per chunk in bursts, us", 8.0, of("burst", "cpu_us_per_chunk")),
        ("added median at 200 requests/s, us", 400.0, added("200 requests/s", "latency_us_p50")),
        (
            "added to first tokens on kept-alive connections, P99, us",
            STALL_US,
            added("60 streams/s", "first_us_p99"),
        ),
        *((f"memory of each of {run['streams']} streams, KB", 20.0, run["kb_per_stream"]) for run in held),
    ]
    return [
        {"what": what, "target": target, "measured": measured, "met": measured <= target}
        for what, target, measured in asked
        if measured is not None
    ]


def table(result: dict[str, Any]) -> str:
    """Markdown."""
    scenarios: dict[str, Any] = result.get("scenarios", {})
    direct = scenarios.get(peers.DIRECT, {})
    columns = [
        "CPU us/request at 1 KB",
        "16 KB",
        "48 KB",
        "us/chunk in bursts",
        "added P50, P99 at 200/s, ms",
    ]
    columns += ["added to first token P50, P99, ms", "KB per open stream"]
    lines = [f"| router, one core | {' | '.join(columns)} |", f"|{' --- |' * (len(columns) + 1)}"]
    for name in scenarios:
        if name == peers.DIRECT:
            continue
        cells = [_figure(scenarios[name], at, "cpu_us_per_request") for at in ("1 KB", "16 KB", "48 KB")]
        cells.append(_figure(scenarios[name], "burst", "cpu_us_per_chunk"))
        for at, figure in (("200 requests/s", "latency_us"), ("60 streams/s", "first_us")):
            pair = [
                _added(scenarios[name], direct, at, f"{figure}_{quantile}") for quantile in ("p50", "p99")
            ]
            cells.append(", ".join(pair))
        held = result.get("memory", {}).get(name, [])
        cells.append(", ".join(f"{run['kb_per_stream']:.1f} ({run['streams']:,})" for run in held) or "-")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _figure(scenarios: dict[str, Any], name: str, figure: str) -> str:
    found = scenarios.get(name, {}).get(figure)
    return "-" if found is None else f"{found:.1f}"


def _added(scenarios: dict[str, Any], direct: dict[str, Any], name: str, figure: str) -> str:
    mine, base = scenarios.get(name, {}).get(figure), direct.get(name, {}).get(figure)
    return "-" if mine is None or base is None else f"{(mine - base) / 1e3:.2f}"


def _running(setup: Setup, name: str, command: Any) -> contextlib.AbstractContextManager[peers.Running]:
    return peers.running(command, setup.folder / name.replace(" ", "-"), setup.upstream.ports, setup.python)


def _wanted(name: str, only: str | None) -> bool:
    return only is None or any(word and word in name for word in only.split(","))


def _line(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 1) if isinstance(value, float) else value for name, value in figures.items()}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers-venv", type=Path, help="where the peers of pip are installed")
    parser.add_argument("--only", metavar="NAMES", help=f"of {', '.join(SCENARIOS)}, memory; parts will do")
    parser.add_argument("--routers", metavar="NAMES", help=f"of {', '.join(peers.ROUTERS)}; parts will do")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one short round, for development")
    parser.add_argument(
        "--table", type=Path, metavar="JSON", help="print a result as Markdown, measure nothing"
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.table is not None:
        print(table(json.loads(arguments.table.read_text())))
        return 0
    if lacking := dummies.missing():
        parser.error(f"needed and not installed: {', '.join(lacking)}")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    python = None if arguments.peers_venv is None else arguments.peers_venv / "bin" / "python"
    described = machine.describe()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)  # nginx's worker is another user
        dummies.build(folder)
        requests = {
            (size, stream): dummies.write(
                folder / f"requests-{size}-{stream}", dummies.conversations(size, stream=stream)
            )
            for size, stream in sorted(
                {(one.body_bytes, one.answer != ONCE) for one in SCENARIOS.values()} | {(1_024, True)}
            )
        }
        with dummies.serving(folder, NODES) as upstream:
            told = measure(Setup(folder, python, upstream, requests), arguments)
    told["targets"] = targets(told)
    results.write(
        {
            "benchmark": "router/speed",
            "machine": described,
            "load_average_1m_after": round(os.getloadavg()[0], 2),
            "peers": peers.versions(python),
            "rounds": 1 if arguments.quick else arguments.rounds,
            **told,
        },
        arguments.json,
    )
    print(table(told), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
