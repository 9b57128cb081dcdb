"""Nodes come, go and are replaced while requests are answered: none of these fails."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from clusters import Cluster
from drift_operator.objects import names
from drift_operator.objects.pods import tolerating_loss
from kube_api import Object
from operator_bed import Bed, Scene, condition, eventually
from plant import Demand

LOAD = Demand(requests_per_s=8)
"""A third of what one node serves."""


@pytest.fixture
def busy(scene: Scene) -> Iterator[Scene]:
    """A service of two nodes that has requests all the time, none of which has failed in the end."""
    scene.apply(replicas=2)
    scene.until_ready(nodes=2)
    scene.service().demand = LOAD
    yield scene
    assert scene.service().failed == 0


def image(deployment: Object) -> str:
    """Of its present template."""
    return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"])


def pods(scene: Scene) -> set[str]:
    return {node.start.name for node in scene.nodes()}


def test_scaling_adds_nodes_and_drains_those_that_leave(busy: Scene) -> None:
    before = pods(busy)
    busy.scale(4)
    busy.until_ready(nodes=4)
    assert before < pods(busy)
    busy.scale(1)
    busy.until_ready(nodes=1)
    assert len(pods(busy)) == 1
    assert busy.service().resumed == 0


def test_a_node_that_leaves_gets_nothing_new_and_finishes_what_it_has(busy: Scene, bed: Bed) -> None:
    bed.fleet.drain_s = 5.0
    try:
        busy.scale(1)
        status = busy.until(lambda status: status.get("drainingReplicas") == 1)
        assert condition(status, "Progressing") == "True"
        assert condition(status, "Ready") == "True"
        assert len(pods(busy)) == 2
        busy.until_ready(nodes=1)
    finally:
        bed.fleet.drain_s = None
    assert busy.service().resumed == 0


def test_the_node_with_less_to_lose_leaves(busy: Scene) -> None:
    busy.bed.cluster.merge(busy.path(), {"spec": {"paused": False}})
    first, second = busy.nodes()
    first.state.open_requests = 40  # that nobody else can take over
    try:
        busy.scale(1)
        eventually(lambda: second.draining)
        assert not first.draining
    finally:
        first.state.open_requests = 0
    busy.until_ready(nodes=1)
    assert pods(busy) == {first.start.name}


def test_a_restart_by_kubectl_replaces_every_node(busy: Scene, bed: Bed) -> None:
    before = pods(busy)
    restarted = {"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"}
    for component in (names.NODE, names.ROUTER):
        body = {"spec": {"template": {"metadata": {"annotations": restarted}}}}
        bed.cluster.merge(busy.deployment(component), body)
    eventually(lambda: not before & pods(busy) and len(pods(busy)) == 2)
    busy.until_ready(nodes=2)


def test_a_new_image_rolls_through_nodes_that_keep_their_number(busy: Scene, bed: Bed) -> None:
    before = pods(busy)
    with bed.cluster.history(busy.path().rpartition("/")[0]) as states:
        busy.patch(engine={"image": "drift-engine:next"})
        busy.until_ready(nodes=2)
    assert not before & pods(busy)
    changed = [state for state in states if state["spec"]["engine"].get("image")]
    done = [state for state in changed if settled(state)]
    assert all(state["status"]["updatedReplicas"] == 2 for state in done)
    assert min(state["status"].get("readyReplicas", 0) for state in changed) >= 2


def settled(state: dict[str, object]) -> bool:
    """It says that nothing is under way, of the present spec."""
    status, metadata = state["status"], state["metadata"]
    assert isinstance(status, dict)
    assert isinstance(metadata, dict)
    seen = status.get("observedGeneration") == metadata["generation"]
    return seen and condition(status, "Progressing") == "False"


def test_a_change_in_the_middle_of_a_rollout_is_the_one_that_counts(busy: Scene) -> None:
    busy.patch(engine={"image": "drift-engine:first"})
    busy.until(lambda status: condition(status, "Progressing") == "True")
    busy.patch(engine={"image": "drift-engine:second"}, replicas=3)
    busy.until_ready(nodes=3)
    assert {node.start.image for node in busy.nodes()} == {"drift-engine:second"}


def test_a_rollout_that_kubectl_undoes_is_taken_back_and_capacity_stays(
    busy: Scene, bed: Bed, control_plane: Cluster
) -> None:
    """The DriftService says what runs; who wants the older image says it there."""
    busy.patch(engine={"image": "drift-engine:first"})
    busy.until_ready(nodes=2)
    busy.patch(engine={"image": "drift-engine:second"})
    busy.until_ready(nodes=2)
    kubectl = control_plane.kubectl.within(busy.namespace)
    deployment = names.deployment("chat", names.NODE)
    with bed.cluster.history(busy.path().rpartition("/")[0]) as states:
        kubectl("rollout", "undo", f"deployment/{deployment}")
        bed.cluster.until(busy.deployment(names.NODE), lambda found: image(found) == "drift-engine:second")
        eventually(lambda: [node.start.image for node in busy.nodes()] == 2 * ["drift-engine:second"])
        busy.until_ready(nodes=2)
    assert min(state["status"].get("readyReplicas", 0) for state in states) >= 2


def test_a_crashed_node_comes_back_and_is_missed_until_then(busy: Scene, bed: Bed) -> None:
    victim = busy.nodes()[0].start.name
    bed.kubelet.crash(busy.namespace, victim)
    busy.until(lambda status: status.get("readyReplicas") == 1, deadline_s=15)
    busy.until_ready(nodes=2)


def serving(status: Object) -> set[str]:
    """Names of the nodes that are there to stay."""
    return {node["name"] for node in status.get("nodes") or () if node["ready"] and not node["draining"]}


def test_a_host_that_is_lost_is_missed_and_its_nodes_come_back_elsewhere(scene: Scene, bed: Bed) -> None:
    soon = tolerating_loss(1)
    scene.apply(replicas=2, engine={"device": "sim", "podTemplate": {"spec": {"tolerations": soon}}})
    scene.until_ready(nodes=2)
    scene.service().demand = LOAD
    found = bed.cluster.get(scene.pods, labelSelector=names.selector_text("chat", names.NODE))
    hosts = {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in found["items"]}
    lost = min(hosts.values())
    assert set(hosts.values()) == set(scene.hosts(names.ROUTER)) == {"gpu-0", "gpu-1"}, "they are spread"
    bed.kubelet.lose(lost)
    try:
        # What the node controller says of a silent host after 50 s; the rest is its own.
        unknown = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}
        bed.cluster.merge(f"/api/v1/nodes/{lost}/status", {"status": {"conditions": [unknown]}})
        away = {name for name, host in hosts.items() if host == lost}
        scene.until(lambda status: len(serving(status)) == 2 and not serving(status) & away, deadline_s=120)
        # The router that was there goes elsewhere by its own tolerations.
        scene.until(lambda status: condition(status, "Ready") == "True", deadline_s=120)
        assert {node.start.name for node in scene.nodes()} & hosts.keys() == {
            name for name, host in hosts.items() if host != lost
        }
        assert scene.service().failed == 0
    finally:
        bed.kubelet.bring_back(lost)
    scene.until_ready(nodes=2)


def test_bounds_that_change_move_the_number_of_nodes(scene: Scene) -> None:
    scene.apply(autoscaling={"minReplicas": 1, "maxReplicas": 4})
    scene.until_ready(nodes=1)
    scene.patch(autoscaling={"minReplicas": 3})
    scene.until_ready(nodes=3)
    assert scene.service().failed == 0
