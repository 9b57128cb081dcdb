"""What a user sees who applies, changes and deletes DriftServices."""

from __future__ import annotations

from typing import Any

import http_calls
import operator_bed
from drift_engine import wire
from drift_operator.objects import names
from drift_router.options import Promise
from kube_api import Object
from operator_bed import Bed, Scene, condition, eventually, message, reason
from plant import Demand

LONG_NAME = "a-service-with-as-long-a-name-as-may-be1"


def ask(scene: Scene, name: str = "chat", words: int = 5) -> str:
    """The text of a chat completion by one of its routers."""
    router = scene.routers(name)[0]
    url = f"http://{router.start.address}:{names.CLIENT_PORT}"
    answer = http_calls.post(url, "/v1/chat/completions", {"messages": [], "max_tokens": words})
    assert answer.status == 200, answer.raw
    return str(answer.json["choices"][0]["message"]["content"])


def ready_states(states: list[Any]) -> list[Any]:
    return [state for state in states if condition(state.get("status", {}), "Ready") == "True"]


def test_an_applied_service_becomes_ready_and_answers(scene: Scene) -> None:
    scene.apply()
    scene.until_ready(nodes=1)
    assert ask(scene) == "w0 w1 w2 w3 w4 "


def test_it_is_not_ready_before_all_its_nodes_serve(scene: Scene, bed: Bed) -> None:
    bed.fleet.loading_s = 1.0
    try:
        with bed.cluster.history(scene.path().rpartition("/")[0]) as states:
            scene.apply(replicas=3)
            scene.until_ready(nodes=3)
            eventually(lambda: bool(ready_states(states)))
    finally:
        bed.fleet.loading_s = 0.0
    first = ready_states(states)[0]["status"]
    assert first["readyReplicas"] == 3
    assert condition(first, "RouterReady") == "True"


def test_routers_are_spread_over_hosts_that_no_zone_names(scene: Scene) -> None:
    services = ("one", "two", "three", "four", "five")
    for name in services:
        scene.apply(name)
    for name in services:
        scene.until_ready(name)
        assert scene.hosts(names.ROUTER, name) == ["gpu-0", "gpu-1"]


def test_a_deleted_service_leaves_nothing(scene: Scene) -> None:
    scene.apply()
    scene.until_ready()
    scene.bed.cluster.delete(scene.path())
    eventually(lambda: not own_objects(scene))


def test_a_service_deleted_while_no_operator_runs_leaves_nothing(scene: Scene, bed: Bed) -> None:
    scene.apply()
    scene.until_ready()
    bed.operator.kill()
    bed.cluster.delete(scene.path())
    eventually(lambda: not own_objects(scene))


def own_objects(scene: Scene) -> list[str]:
    """All but what every namespace has."""
    usual = {"configmaps/kube-root-ca.crt", "serviceaccounts/default"}
    return sorted(scene.objects().keys() - usual)


def test_the_longest_name_is_as_good_as_any(scene: Scene) -> None:
    assert len(LONG_NAME) == 40
    scene.apply(LONG_NAME)
    scene.until_ready(LONG_NAME)
    assert ask(scene, LONG_NAME)


def test_services_know_nothing_of_each_other(scene: Scene, bed: Bed) -> None:
    with operator_bed.scene(bed) as elsewhere:
        scene.apply()
        scene.apply("chat2", replicas=2)
        elsewhere.apply(replicas=2)
        scene.until_ready("chat", nodes=1)
        scene.until_ready("chat2", nodes=2)
        elsewhere.until_ready("chat", nodes=2)
        elsewhere.service().demand = Demand(requests_per_s=10)
        elsewhere.until(judged)
        bed.cluster.delete(scene.path("chat2"))
        eventually(lambda: not scene.nodes("chat2"))
        assert len(scene.nodes()) == 1
        assert len(elsewhere.nodes()) == 2
        assert not judged(scene.status())
        assert elsewhere.service().failed == 0


def judged(status: Object) -> bool:
    """Whether it tells of requests."""
    return bool(((status.get("slo") or {}).get("ttft") or {}).get("requests"))


def test_a_spec_that_cannot_be_served_is_told_and_mended(scene: Scene) -> None:
    scene.apply(multiplexing={"mode": "disaggregated"})
    status = scene.until(lambda status: reason(status, "Ready") == "InvalidSpec")
    assert "multiplexing.mode" in message(status, "Ready")
    assert not scene.nodes()
    scene.apply()
    scene.until_ready()


def test_a_change_that_cannot_be_served_leaves_what_runs(scene: Scene) -> None:
    scene.apply()
    scene.until_ready()
    scene.patch(multiplexing={"mode": "disaggregated"})
    scene.until(lambda status: reason(status, "Degraded") == "InvalidSpec")
    assert ask(scene)


def test_an_image_that_cannot_be_pulled_is_told_in_the_pods_words(scene: Scene, bed: Bed) -> None:
    bed.kubelet.refuse_images("missing:*")
    scene.apply(engine={"device": "sim", "image": "missing:1"})
    status = scene.until(lambda status: reason(status, "Degraded") == "ImageUnavailable")
    assert "missing:1" in message(status, "Degraded")
    assert "spec.engine.image" in message(status, "Degraded")
    assert condition(status, "Ready") == "False"
    bed.kubelet.serve_images()
    status = scene.until_ready()
    assert condition(status, "Degraded") == "False"


def test_nodes_that_find_no_room_are_told_in_the_schedulers_words(scene: Scene) -> None:
    scene.apply(engine={"device": "sim", "resources": {"requests": {"cpu": "5k"}}})
    status = scene.until(lambda status: reason(status, "Degraded") == "Unschedulable")
    assert "Insufficient cpu" in message(status, "Degraded")


def test_a_missing_secret_of_api_keys_is_named_until_it_is_made(scene: Scene, bed: Bed) -> None:
    scene.apply(auth={"apiKeysSecretRef": {"name": "chat-keys"}})
    status = scene.until(lambda status: reason(status, "Degraded") == "SecretMissing")
    assert "Secret chat-keys" in message(status, "Degraded")
    assert "Secret chat-keys" in message(status, "RouterReady")
    secret = {"metadata": {"name": "chat-keys"}, "stringData": {"one": "sk-one"}}
    bed.cluster.create(f"/api/v1/namespaces/{scene.namespace}/secrets", secret)
    scene.until_ready()
    scene.until(lambda status: condition(status, "Degraded") == "False")


def test_a_node_that_ends_again_and_again_is_told_in_its_last_words(scene: Scene, bed: Bed) -> None:
    bed.kubelet.break_images("broken:*", "loading\nerror: model: there is no config.json in /models/absent\n")
    scene.apply(engine={"device": "sim", "image": "broken:1"})
    status = scene.until(lambda status: reason(status, "Degraded") == "ContainerCrashes")
    assert "there is no config.json" in message(status, "Degraded")
    assert condition(status, "Ready") == "False"


def test_a_changed_promise_reaches_who_runs_without_a_restart(scene: Scene) -> None:
    scene.apply()
    scene.until_ready()
    before = [pod.start.name for pod in (*scene.nodes(), *scene.routers())]
    scene.patch(slo={"ttft": {"targetMs": 900}, "tbt": {"targetMs": 50}})
    eventually(lambda: all(node.state.targets == wire.Targets(900, 0, 50) for node in scene.nodes()))
    eventually(lambda: all(router.promised.promise == Promise(900, 0, 50) for router in scene.routers()))
    scene.until_ready()
    assert [pod.start.name for pod in (*scene.nodes(), *scene.routers())] == before


def test_what_others_change_or_delete_is_put_right(scene: Scene, bed: Bed) -> None:
    scene.apply()
    scene.until_ready()
    service = f"/api/v1/namespaces/{scene.namespace}/services/chat-nodes"
    bed.cluster.delete(service)
    bed.cluster.merge(
        scene.deployment(names.ROUTER),
        {"spec": {"template": {"spec": {"containers": [{"name": "router", "image": "foreign:1"}]}}}},
    )
    bed.cluster.until(service, lambda found: True)
    bed.cluster.until(
        scene.deployment(names.ROUTER),
        lambda found: found["spec"]["template"]["spec"]["containers"][0]["image"] != "foreign:1",
    )
    scene.until_ready()


def test_a_router_without_a_node_is_no_ready_service(scene: Scene, bed: Bed) -> None:
    scene.apply()
    scene.until_ready()
    (node,) = scene.nodes()
    bed.kubelet.hold_unready(scene.namespace, node.start.name)
    scene.until(lambda status: condition(status, "Ready") == "False", deadline_s=15)
    bed.kubelet.hold_unready(scene.namespace, node.start.name, False)
    scene.until_ready()
