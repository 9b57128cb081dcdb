"""What one operator costs: processor time, memory and writes, with idle and with busy services.

    python -m benchmarks.operator.cost --json benchmarks/operator/results/cost.json

A real API server with its controllers (the test cluster's), and pods by a stand-in kubelet whose nodes and routers
are sockets with reports: the operator does all that it does in a cluster, and only its own process is counted. Needs
what tests/cluster needs. One operator serves the idle ones, another the busy ones. Each step is measured for a while
after its services have come to rest: user and system time of the operator's process, its passes by its own metrics,
what was written by the objects' versions. `--images` adds the archives' sizes of its and the router's image, built as
the tests build them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import machine
from benchmarks.engine import results
from prometheus_client.parser import text_string_to_metric_families

sys.path.insert(0, str(machine.ROOT / "tests" / "support"))

import clusters
import drift_images
import http_calls
import operator_bed
import operator_process
import stand_in_kubelet
from drift_operator import crd
from kubectl import define
from operator_bed import Bed, Scene, condition
from plant import Demand
from stand_in_fleet import Fleet
from stand_in_kubelet import Machine

REST_S = 20.0
"""After a step's services are ready or busy: the last words stand in their statuses."""
READY_S = 300.0
BUSY = Demand(requests_per_s=8, prompt_tokens=2048, output_tokens=64)
"""Of each busy service: two thirds of what its node carries."""

TARGET_SHARE, TARGET_MB = 0.05, 250.0


class Step(NamedTuple):
    services: int
    busy: int


RUNS = ((Step(1, 0), Step(10, 0), Step(100, 0)), (Step(1, 1), Step(10, 10)))
"""Each with an operator of its own: what was busy has more to say for minutes."""


def measure(folder: Path, steps: Sequence[Step], seconds: float) -> list[dict[str, Any]]:
    with contextlib.ExitStack() as up:
        control_plane = up.enter_context(clusters.started("control-plane"))
        define(control_plane.kubectl, crd.build())
        fleet, kubeconfig = Fleet(), control_plane.kubeconfig
        bed = Bed(
            up.enter_context(operator_bed.cluster(kubeconfig)),
            up.enter_context(stand_in_kubelet.running(kubeconfig, [Machine("host")], fleet)),
            fleet,
            up.enter_context(operator_process.operator(kubeconfig, folder)),
        )
        scene = up.enter_context(operator_bed.scene(bed))
        found = []
        for step in steps:
            _prepare(scene, step)
            found.append(_step(scene, step, seconds))
            print(found[-1], file=sys.stderr, flush=True)
        return found


def _prepare(scene: Scene, step: Step) -> None:
    """At rest as the step says. Services are added from one step to the next."""
    services = [f"chat-{number}" for number in range(step.services)]
    for name in services:
        if scene.bed.cluster.find(scene.path(name)) is None:
            scene.apply(name, routing={"replicas": 1})
    for place, name in enumerate(services):
        scene.until_ready(name, nodes=1, deadline_s=READY_S)
        scene.until(lambda status: condition(status, "SplitConverged") == "True", name)
        scene.service(name).demand = BUSY if place < step.busy else Demand()
    time.sleep(REST_S)


def _step(scene: Scene, step: Step, seconds: float) -> dict[str, Any]:
    operator = scene.bed.operator
    objects, cpu_s, passes, start_s = scene.objects(), operator.cpu_s, _passes(operator.url), time.monotonic()
    resident: list[int] = []
    while (left_s := start_s + seconds - time.monotonic()) > 0:
        time.sleep(min(1.0, left_s))
        resident.append(operator.rss_bytes)
    took_s = time.monotonic() - start_s
    used_s, made = operator.cpu_s - cpu_s, _passes(operator.url) - passes
    after = scene.objects()
    written = sorted(key for key in after if after[key] != objects.get(key))
    return {
        "services": step.services,
        "busy": step.busy,
        "seconds": round(took_s, 1),
        "cpu_s": round(used_s, 3),
        "core_share": round(used_s / took_s, 4),
        "passes": round(made),
        "cpu_ms_per_pass": round(1000 * used_s / max(1.0, made), 2),
        "resident_mb": round(max(resident) / 1e6, 1),
        "objects_written": len(written),
        "load_average_1m": round(os.getloadavg()[0], 2),
    }


def _passes(url: str) -> float:
    text = http_calls.get(url, "/metrics").raw.decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "drift_operator_reconcile_total"
    )


def images(folder: Path) -> dict[str, float]:
    """Of their archives, in MB."""
    drift_images.build()
    sizes = {}
    for component in ("operator", "router"):
        archive = folder / f"{component}.tar"
        drift_images.run("save", component, str(archive))
        sizes[component] = round(archive.stat().st_size / 1e6, 1)
    return sizes


def targets(steps: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For a hundred idle services, set before anything was measured."""
    idle = next((step for step in steps if step["services"] == 100 and not step["busy"]), None)
    if idle is None:
        return []
    asked = [
        ("share of a core", TARGET_SHARE, idle["core_share"]),
        ("resident, MB", TARGET_MB, idle["resident_mb"]),
        ("objects written at rest", 0, idle["objects_written"]),
    ]
    return [
        {"what": what, "target": target, "measured": measured, "met": measured <= target}
        for what, target, measured in asked
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.operator.cost",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there, too")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each step (default: %(default)g)")
    parser.add_argument("--most", type=int, default=100, help="services (default: %(default)s)")
    parser.add_argument("--images", action="store_true", help="measure the images, too")
    arguments = parser.parse_args()
    if lacking := clusters.missing():
        parser.error(lacking)
    described = machine.describe()
    clusters.build()
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for run in RUNS:
            steps = [step for step in run if step.services <= arguments.most]
            found += measure(Path(folder), steps, arguments.seconds)
        result: dict[str, Any] = {**described, "targets": targets(found), "steps": found}
        if arguments.images:
            result["image_mb"] = images(Path(folder))
    results.write(result, arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
