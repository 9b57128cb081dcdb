"""What each lever is worth on this machine: three real nodes behind the router, at rising rates.

    python -m benchmarks.operator.levers --trace FILE --json benchmarks/operator/results/levers.json

`drift up` with all levers frozen; with the split alone; with split and weights; and with all three, where the number
of nodes moves between one and three. `drift bench` replays the trace against each at one rate after the other,
without a pause between them, as load rises. Once with drift-tiny and once with a random-weight 117M shape. Three
nodes have less than a core each on two cores, and a node with one core has nothing to split.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import yaml
from benchmarks import local_service, machine
from benchmarks.engine import results, shapes

from drift_cli.main import main as drift_main
from drift_engine.bench import shaping, traces
from drift_operator.levers import weights

NODES = 3


class Variant(NamedTuple):
    spec: dict[str, Any]
    """What it adds to the DriftService's."""
    served: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext
    """Within which `drift up` runs."""


def weights_rest() -> AbstractContextManager[Any]:
    return mock.patch.object(weights, "move", lambda state, slo, nodes, now_s: (state, ()))


VARIANTS = {
    "off": Variant({"replicas": NODES, "paused": True}),
    "split": Variant({"replicas": NODES}, weights_rest),
    "split and weights": Variant({"replicas": NODES}),
    "all three": Variant(
        {"autoscaling": {"minReplicas": 1, "maxReplicas": NODES, "stabilization": {"down": "30s"}}}
    ),
}


class Model(NamedTuple):
    length_scale: float
    ttft_ms: int
    ttft_per_token_ms: float
    tbt_ms: int
    rates_rps: tuple[float, ...]


MODELS = {
    "drift-tiny": Model(0.25, 400, 1.0, 80, (2.0, 4.0, 6.0)),
    "117M": Model(0.125, 1500, 4.0, 300, (1.2, 2.4, 4.8)),
}
"""The lengths are those of the trace times the scale: a node has a third of two cores."""

ATTAINMENT = 0.9


def service(folder: Path, uri: str, model: Model, variant: Variant) -> Path:
    promise = {
        "ttft": {
            "targetMs": model.ttft_ms,
            "perTokenMs": model.ttft_per_token_ms,
            "attainment": ATTAINMENT,
        },
        "tbt": {"targetMs": model.tbt_ms, "attainment": ATTAINMENT},
    }
    document = {
        "apiVersion": "drift.ai/v1alpha1",
        "kind": "DriftService",
        "metadata": {"name": "levers"},
        "spec": {
            "model": {"uri": uri, "name": "levers"},
            "engine": {"device": "cpu"},
            "slo": promise,
            **variant.spec,
        },
    }
    file = folder / "service.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def measured(
    url: str, folder: Path, model: Model, rate_rps: float, arguments: argparse.Namespace
) -> dict[str, Any]:
    requests = max(8, round(rate_rps * arguments.seconds))
    found = local_service.bench(
        url,
        folder,
        *("--trace", str(arguments.trace), "--length-scale", str(model.length_scale)),
        *("--requests", str(requests), "--spread"),
        *("--rate-scale", f"{rate_rps / recorded_rps(arguments.trace, requests):.6g}"),
        *("--slo-ttft-ms", str(model.ttft_ms), "--slo-ttft-per-token-ms", str(model.ttft_per_token_ms)),
        *("--slo-tbt-ms", str(model.tbt_ms), "--attainment", str(ATTAINMENT)),
        *("--timeout-s", "300", "--allow-failures"),
    )
    kept = (
        *("requests", "failed", "duration_s", "attainment", "ttft_attainment", "tbt_attainment"),
        *("goodput_rps", "ttft_ms", "tbt_ms"),
    )
    return {name: found[name] for name in kept}


def recorded_rps(trace: Path, requests: int) -> float:
    arrivals = shaping.shape(traces.read(trace), shaping.Shape(requests=requests, spread=True))
    return len(arrivals) / (arrivals[-1].at_s - arrivals[0].at_s)


def moved() -> dict[str, int]:
    """How often each lever moved, of the decisions that the status still tells, and the nodes at the end."""
    told = subprocess.run(
        [*local_service.DRIFT, "status", "levers", "--local", "--json"], capture_output=True, text=True
    )
    status = json.loads(told.stdout)["status"]
    levers = [decision["lever"] for decision in status.get("decisions") or []]
    return {**{lever: levers.count(lever) for lever in sorted(set(levers))}, "nodes": status["replicas"]}


def run(uri: str, model: Model, name: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    found = []
    with tempfile.TemporaryDirectory() as made:
        file = service(Path(made), uri, model, VARIANTS[name])
        drift = (sys.executable, "-u", "-m", "benchmarks.operator.levers", "--serve", name, "--")
        with local_service.up(file, drift) as url:
            for rate_rps in model.rates_rps:
                one = measured(url, Path(made), model, rate_rps, arguments)
                found.append({"rate_rps": rate_rps, **one, "moved": moved()})
                print(uri, name, found[-1], file=sys.stderr, flush=True)
    return found


def main() -> int:
    if sys.argv[1:2] == ["--serve"]:
        _, name, _, *arguments = sys.argv[1:]
        with VARIANTS[name].served():
            return drift_main(arguments)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trace", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=45.0, help="of arrivals at each rate")
    parser.add_argument("--model", choices=list(MODELS), action="append", help="only this one")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    described = machine.describe()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as made:
        large = shapes.write(Path(made), shapes.build(shapes.LLAMA_120M))
        gc.collect()
        for model in options.model or MODELS:
            uri = large.as_uri() if model == "117M" else "embedded://drift-tiny"
            found[model] = {
                "promise": MODELS[model]._asdict(),
                "levers": {name: run(uri, MODELS[model], name, options) for name in VARIANTS},
            }
            results.write(
                {
                    "benchmark": "operator/levers",
                    "machine": described,
                    "trace": options.trace.name,
                    "nodes": NODES,
                    "attainment": ATTAINMENT,
                    "models": found,
                },
                options.json,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
