"""The operator may end at any moment, and lose the API server: requests go on, and it finds its way back."""

from __future__ import annotations

import copy
import json
import random
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import operator_bed
import operator_process
import severed_api
from drift_operator.objects import names
from kube_api import Object
from operator_bed import Bed, Scene, condition
from plant import Demand
from severed_api import SeveredApi

LOAD = Demand(requests_per_s=8)

CHANGES: dict[str, Callable[[Scene], None]] = {
    "apply": lambda scene: scene.apply(replicas=2),
    "scale-up": lambda scene: scene.scale(4),
    "image": lambda scene: scene.patch(engine={"image": "drift-engine:next"}),
    "promise": lambda scene: scene.patch(slo={"ttft": {"targetMs": 700}}),
    "routers": lambda scene: scene.patch(routing={"replicas": 3}),
    "scale-down": lambda scene: scene.scale(2),
}
"""In this order; the last state is the same whatever happens in between."""


def shape(scene: Scene) -> dict[str, Object]:
    """What the operator made, without what differs from one namespace and one moment to the next."""
    found: dict[str, Object] = {}
    for kind in operator_bed.OWNED:
        plural = kind.rpartition("/")[2]
        if plural in ("pods", "replicasets", "endpointslices", "secrets"):
            continue
        listed = scene.bed.cluster.get("/" + kind.format(f"namespaces/{scene.namespace}"))
        for item in listed["items"]:
            if item["metadata"].get("labels", {}).get(names.MANAGED_BY) == names.FIELD_MANAGER:
                found[f"{plural}/{item['metadata']['name']}"] = _bare(item, scene.namespace)
    return found


def _bare(item: Object, namespace: str) -> Object:
    bare = copy.deepcopy(item)
    bare.pop("status", None)
    for key in ("namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "managedFields"):
        bare["metadata"].pop(key, None)
    for owner in bare["metadata"].get("ownerReferences", ()):
        owner.pop("uid")
    for key in ("clusterIP", "clusterIPs"):
        bare.get("spec", {}).pop(key, None)
    if bare["metadata"].get("annotations", {}).pop("deployment.kubernetes.io/revision", None):
        # Of nodes: a token that each service draws for itself.
        bare["spec"]["template"]["metadata"].get("annotations", {}).pop("drift.ai/control-token", None)
    return _renamed(bare, namespace)


def _renamed(value: Object, namespace: str) -> Object:
    text = json.dumps(value).replace(namespace, "NAMESPACE")
    bare: Object = json.loads(re.sub(r"[0-9a-f]{64}", "SHA256", text))
    return bare


def play(scene: Scene, between: Callable[[], None], until_s: float = 120) -> None:
    for change in CHANGES.values():
        change(scene)
        scene.service().demand = LOAD if scene.service().routers else Demand()
        between()
    scene.until_ready(nodes=2, deadline_s=until_s)


@pytest.fixture(scope="module")
def undisturbed(bed: Bed) -> dict[str, Object]:
    """What the changes come to where nobody dies."""
    with operator_bed.scene(bed) as scene:

        def settle() -> None:
            scene.until(lambda status: condition(status, "Progressing") == "False")

        play(scene, settle)
        return shape(scene)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("seed", range(3))
def test_it_may_be_killed_at_any_moment(
    scene: Scene, bed: Bed, undisturbed: dict[str, Object], seed: int
) -> None:
    draw = random.Random(seed)

    def kill() -> None:
        time.sleep(draw.uniform(0, 2.5))
        bed.operator.kill()
        time.sleep(draw.uniform(0, 1))
        bed.operator.start(ready=draw.random() < 0.5)

    play(scene, kill)
    assert shape(scene) == undisturbed
    assert scene.service().failed == 0


def test_requests_go_on_without_an_operator(scene: Scene, bed: Bed) -> None:
    scene.apply(replicas=2)
    scene.until_ready(nodes=2)
    scene.service().demand = LOAD
    bed.operator.kill()
    bed.kubelet.crash(scene.namespace, scene.nodes()[0].start.name)
    operator_bed.eventually(lambda: any(node.start.restarts and node.serving for node in scene.nodes()))
    bed.operator.start()
    scene.until_ready(nodes=2)
    assert scene.service().failed == 0


def test_one_that_was_replaced_goes_on_with_numbers_that_nodes_take(scene: Scene, bed: Bed) -> None:
    scene.apply()
    scene.until_ready()
    (node,) = scene.nodes()
    scene.until(lambda status: condition(status, "SplitConverged") == "True")
    before = node.set_point
    assert before is not None
    bed.operator.restart()
    scene.patch(multiplexing={"decodeSMs": {"min": 64, "max": 80}})

    def taken() -> bool:
        point = node.set_point
        return point is not None and point.range == (64, 80) and point.epoch > before.epoch

    operator_bed.eventually(taken)
    scene.until(lambda status: condition(status, "SplitConverged") == "True")


def test_one_that_hung_lets_another_go_on_and_takes_over_from_it(
    scene: Scene, bed: Bed, kubeconfig: Path, tmp_path: Path
) -> None:
    first = bed.operator
    scene.apply()
    scene.until_ready(nodes=1)
    first.pause()
    with operator_process.operator(kubeconfig, tmp_path, identity="second") as second:
        scene.scale(2)
        scene.until_ready(nodes=2)
        assert "taking over the lease" in second.log
        first.go_on()
        operator_bed.eventually(lambda: "the lease was lost" in first.log)
        first.until_ready()  # to take over
        scene.scale(3)
        scene.until_ready(nodes=3)
        assert second.stop() == 0
    scene.scale(1)
    scene.until_ready(nodes=1)
    assert first.running


# the way to the API server


@pytest.fixture
def cut(kubeconfig: Path, bed: Bed, tmp_path: Path) -> Iterator[tuple[Scene, SeveredApi]]:
    """A scene whose operator reaches the API server by a way that can be cut."""
    bed.operator.stop()
    with severed_api.severed(kubeconfig, tmp_path) as (api, way):
        process = operator_process.OperatorProcess(way, tmp_path)
        try:
            process.start()
            with operator_bed.scene(Bed(bed.cluster, bed.kubelet, bed.fleet, process)) as scene:
                yield scene, api
        finally:
            process.close()
            bed.operator.start()


def test_lost_connections_are_made_again(cut: tuple[Scene, SeveredApi]) -> None:
    scene, api = cut
    scene.apply()
    scene.until_ready()
    for replicas in (3, 1, 2):
        api.cut()
        scene.scale(replicas)
        api.cut()
        scene.until_ready(nodes=replicas)


def test_an_api_server_that_is_away_costs_no_request_and_no_restart(cut: tuple[Scene, SeveredApi]) -> None:
    scene, api = cut
    operator = scene.bed.operator
    scene.apply(replicas=2)
    scene.until_ready(nodes=2)
    scene.service().demand = LOAD
    api.close()
    scene.scale(3)
    operator_bed.eventually(lambda: "the lease was lost" in operator.log)
    operator.until_ready()  # to take over
    assert len(scene.nodes()) == 2
    api.open()
    scene.until_ready(nodes=3)
    assert operator.running
    assert scene.service().failed == 0
    assert operator.stop() == 0
