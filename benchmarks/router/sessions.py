"""How much of their cache recorded sessions meet on several real nodes, against one node with all of it.

    python -m benchmarks.router.sessions --trace FILE --json benchmarks/router/results/sessions.json

`drift up` with drift-tiny on this machine's cores, once with one node and once with three that share the same memory
between them, and `drift bench` with the recorded agents' sessions against each. A turn begins with the turns before
it, and all sessions with the same instructions. What counts is the share of the prompts' tokens that was cached:
nodes, router and load share the cores, and so do times.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import local_service, machine
from benchmarks.engine import results

NODES = (1, 3)
KV_TOKENS = 196_608
"""Of all nodes together, at length scale 1: nearly twice what the eight sessions' last prompts have, 101,000."""

KV_BYTES_PER_TOKEN = 5120
"""Of drift-tiny in float32: keys and values of 5 layers with 2 heads of 64."""

TARGET = 0.95

SERVICE = """\
apiVersion: drift.ai/v1alpha1
kind: DriftService
metadata:
  name: sessions
spec:
  model: {{uri: "embedded://drift-tiny", name: drift-tiny}}
  engine: {{device: cpu, args: ["--kv-bytes={kv_bytes}"]}}
  replicas: {nodes}
"""


def service(folder: Path, nodes: int, kv_tokens: int) -> Path:
    file = folder / f"{nodes}.yaml"
    file.write_text(SERVICE.format(nodes=nodes, kv_bytes=kv_tokens * KV_BYTES_PER_TOKEN // nodes))
    return file


def measured(folder: Path, url: str, arguments: argparse.Namespace) -> dict[str, Any]:
    found = local_service.bench(
        url,
        folder,
        *("--trace", str(arguments.trace), "--length-scale", str(arguments.length_scale)),
        *("--rate-scale", str(arguments.rate_scale), "--timeout-s", "600"),
    )
    kept = (
        *("mode", "requests", "failed", "clipped_prompts", "duration_s", "prompt_tokens", "cached_tokens"),
        *("cached_share", "output_tokens", "ttft_ms", "tbt_ms"),
    )
    return {name: found[name] for name in kept}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trace", type=Path, required=True, help="recorded agent sessions")
    parser.add_argument("--length-scale", type=float, default=0.5)
    parser.add_argument("--rate-scale", type=float, default=5.0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    described = machine.describe()
    kv_tokens = round(KV_TOKENS * arguments.length_scale)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as made:
        for nodes in NODES:
            with local_service.up(service(Path(made), nodes, kv_tokens)) as url:
                found[str(nodes)] = measured(Path(made), url, arguments)
    one, several = (found[str(nodes)]["cached_share"] for nodes in NODES)
    results.write(
        {
            "benchmark": "router/sessions",
            "machine": described,
            "load_average_1m_after": round(os.getloadavg()[0], 2),
            "trace": arguments.trace.name,
            "length_scale": arguments.length_scale,
            "rate_scale": arguments.rate_scale,
            "kv_tokens_of_all_nodes": kv_tokens,
            "nodes": found,
            "share_of_one_cache": round(several / one, 4),
            "target": {"share_of_one_cache_at_least": TARGET, "met": several >= TARGET * one},
        },
        arguments.json,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
