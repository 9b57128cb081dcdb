"""The closed loop on what really runs: the operator, routers and nodes on simulated GPUs, clients that do not wait.

Only the kubelet is a stand-in. All times are those of the levers' own clocks, so each test takes minutes; and what a
lever does depends on how fast the processes are, so nothing else may run beside.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import external_door
import open_loop
import operator_bed
import operator_process
import stand_in_kubelet
from clusters import Cluster
from drift_engine.options import NodeOptions
from drift_operator.objects import names
from kube_api import Object
from open_loop import OpenLoop
from operator_bed import Bed, Scene, condition, eventually
from real_pods import RealPods
from stand_in_fleet import Fleet
from stand_in_kubelet import Machine

pytestmark = [pytest.mark.alone, pytest.mark.timeout(500)]

PROMPT_TOKENS = 6000
QUIET_PER_S, RUSH_PER_S = 0.4, 3.2
"""A node prefills 1.3 such prompts a second, the slow one 0.6: two of them carry less than half of a rush."""

SPEC: Object = {
    "engine": {"device": "sim", "args": ["--sim-model=llama-34b", "--kv-bytes=40000000000"]},
    "slo": {
        "window": "30s",
        "ttft": {"targetMs": 4000, "attainment": 0.9},
        "tbt": {"targetMs": 400, "attainment": 0.9},
    },
    "routing": {"replicas": 1, "overload": {"maxWait": "5m"}},
}
LONE_RUSH_PER_S = 2.4
"""As much too much for one node: the gaps are pressed before a second one is there."""
RISE_S, FALL_S = 180.0, 150.0
"""Deadlines. A node more takes pressure for 40 s, seen every 15 s over the last 30 s; a minute without misses comes
before anything is taken back."""


def slow(options: NodeOptions, place: int) -> NodeOptions:
    """The machine of the second node takes twice as long for everything, as the model were twice as large."""
    return msgspec.structs.replace(options, sim_model="llama-70b") if place == 1 else options


@contextlib.contextmanager
def running(control_plane: Cluster, kubeconfig: Path, folder: Path, **asked: object) -> Iterator[Scene]:
    """`asked`: fields of OperatorOptions."""
    machines = [Machine("gpu-0", gpus=8), Machine("gpu-1", gpus=8)]
    pods = RealPods(control_plane.kubectl, kubeconfig, folder)
    pods.changed = slow
    with (
        operator_bed.cluster(kubeconfig) as cluster,
        stand_in_kubelet.running(kubeconfig, machines, pods) as kubelet,
        operator_process.operator(kubeconfig, folder, **asked) as operator,
        operator_bed.scene(Bed(cluster, kubelet, Fleet(), operator)) as scene,
    ):
        yield scene


@contextlib.contextmanager
def clients(scene: Scene) -> Iterator[OpenLoop]:
    """Of the service's only router."""
    found = scene.bed.cluster.get(scene.pods, labelSelector=names.selector_text("chat", names.ROUTER))
    (address,) = {item["status"]["podIP"] for item in found["items"]}
    url = f"http://{address}:{names.CLIENT_PORT}"
    with open_loop.running(url, "chat", prompt_tokens=PROMPT_TOKENS, output_tokens=8) as load:
        yield load


class Told:
    """All decisions that were ever in the status, oldest first."""

    def __init__(self, states: list[Object]) -> None:
        self._states = states

    @property
    def decisions(self) -> list[Object]:
        found: dict[str, Object] = {}
        for state in [*self._states]:
            for each in reversed(state.get("status", {}).get("decisions") or []):
                found.setdefault(repr(sorted(each.items())), each)
        return list(found.values())

    def reasons(self, lever: str) -> list[str]:
        return [each["reason"] for each in self.decisions if each["lever"] == lever]


def test_load_that_rises_moves_split_weights_and_nodes_and_load_that_falls_moves_them_back(
    control_plane: Cluster, kubeconfig: Path, tmp_path: Path
) -> None:
    scaling = {
        "minReplicas": 2,
        "maxReplicas": 4,
        "predictor": "None",
        "stabilization": {"up": "40s", "down": "5s"},
    }
    with running(control_plane, kubeconfig, tmp_path) as scene:
        scene.apply(**SPEC, autoscaling=scaling)
        scene.until_ready(nodes=2)
        with scene.bed.cluster.history(scene.path().rpartition("/")[0]) as states, clients(scene) as load:
            told = Told(states)
            load.rate_per_s = QUIET_PER_S
            scene.until(lambda status: condition(status, "SLOMet") == "True")
            assert told.decisions == [], "a service that begins, and a load that fits, need none"

            load.rate_per_s = RUSH_PER_S
            scene.until(lambda status: status.get("readyReplicas", 0) > 2, deadline_s=RISE_S)
            rising = told.decisions
            levers = [each["lever"] for each in rising]
            assert levers.index("split") < levers.index("weight") < levers.index("replicas")
            assert set(told.reasons("replicas")) <= {"Pressure", "Burning"}
            assert all(each["reason"] and each["message"] and each["time"] for each in rising)

            load.rate_per_s = QUIET_PER_S
            peak = scene.status()["replicas"]
            scene.until(lambda status: status["replicas"] < peak, deadline_s=FALL_S)
            eventually(lambda: "Relaxing" in told.reasons("split"), FALL_S)
            eventually(lambda: rises(told.decisions[len(rising) :]), FALL_S)
            assert "Spare" in told.reasons("replicas")
            scene.until(lambda status: condition(status, "SLOMet") == "True")
        assert load.answered > 0
        assert not load.failures


def rises(decisions: list[Object]) -> bool:
    """Some node's weight."""
    return any(each["lever"] == "weight" and float(each["to"]) > float(each["from"]) for each in decisions)


def test_an_autoscaler_scales_by_the_operators_number_which_never_writes_replicas(
    control_plane: Cluster, kubeconfig: Path, tmp_path: Path
) -> None:
    scaling = {
        "minReplicas": 1,
        "maxReplicas": 3,
        "mode": "HPA",
        "predictor": "None",
        "stabilization": {"up": "40s", "down": "5s"},
    }
    with (
        external_door.opened(control_plane) as asked,
        running(control_plane, kubeconfig, tmp_path, **asked) as scene,
    ):
        scene.apply(**SPEC, replicas=1, autoscaling=scaling)
        scene.until_ready(nodes=1)
        with scene.bed.cluster.history(scene.path().rpartition("/")[0]) as states, clients(scene) as load:
            load.rate_per_s = QUIET_PER_S
            scene.until(lambda status: condition(status, "SLOMet") == "True")
            told = Told(states)
            load.rate_per_s = LONE_RUSH_PER_S
            eventually(lambda: bool(told.reasons("split")), RISE_S)  # the quicker levers are the operator's
            scene.until(lambda status: status.get("readyReplicas", 0) > 1, deadline_s=RISE_S)
            load.rate_per_s = QUIET_PER_S
            peak = scene.read()["spec"]["replicas"]
            scene.bed.cluster.until(
                scene.path(), lambda found: found["spec"]["replicas"] < peak, deadline_s=FALL_S
            )
            assert told.reasons("replicas") == []
        assert load.answered > 0
        assert not load.failures
        writers = {
            entry["manager"]
            for state in states
            for entry in state["metadata"]["managedFields"]
            if "f:replicas" in entry["fieldsV1"].get("f:spec", {})
        }
        assert writers == {"user", "kube-controller-manager"}
