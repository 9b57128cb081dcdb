"""The operator keeps the promise by split, weights and number of nodes, and only by what it knows."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

import operator_bed
from fleet_pods import Mishap
from kube_api import Object
from operator_bed import Bed, Scene, condition, eventually, message
from plant import Demand

QUIET = Demand(requests_per_s=4, prompt_tokens=2048, output_tokens=32)
RUSH = Demand(requests_per_s=33, prompt_tokens=2048, output_tokens=32)
"""Of long prompts, for which three nodes are needed: `plant` says that one can prefill 18 a second, and keeps the
promise up to 12."""
TALK = Demand(requests_per_s=60, prompt_tokens=1024, output_tokens=128)
"""Of longer answers, of which one node decodes 28 a second: more of them wait for others to end."""

QUICK = {"minReplicas": 1, "maxReplicas": 4, "stabilization": {"up": "0s", "down": "5s"}, "predictor": "None"}

TRUTH_S = 15
"""In which the status tells what happened."""

CLOCK_S = 20
"""Longer than the replicas' clock."""

MISHAPS = [each for each in Mishap if each is not Mishap.NONE]


def scaled(status: Object) -> list[Object]:
    """Decisions on the number of nodes that were made for the load's sake."""
    found = status.get("decisions") or []
    return [each for each in found if each["lever"] == "replicas" and each["reason"] != "Bounds"]


def told(states: list[Object]) -> list[Object]:
    """All decisions that were ever in a status, oldest first. A status has the last ten."""
    found: dict[tuple[str, ...], Object] = {}
    for state in states:
        for each in reversed(state.get("status", {}).get("decisions") or []):
            found.setdefault(
                tuple(each.get(key, "") for key in ("time", "lever", "node", "from", "to")), each
            )
    return list(found.values())


@pytest.mark.timeout(300)
def test_answers_that_wait_for_others_to_end_get_nodes_and_no_fewer_decode_sms(scene: Scene) -> None:
    scene.apply(autoscaling=QUICK)
    scene.until_ready(nodes=1)
    scene.service().demand = TALK
    scene.until(lambda status: status.get("readyReplicas", 0) >= 3, deadline_s=90)
    scene.until(lambda status: condition(status, "SLOMet") == "True", deadline_s=120)
    assert scene.service().failed == 0


@pytest.mark.timeout(420)
def test_nodes_are_added_for_a_rush_and_leave_after_it(scene: Scene, bed: Bed) -> None:
    scene.apply(autoscaling=QUICK)
    scene.until_ready(nodes=1)
    scene.service().demand = QUIET
    scene.until(lambda status: condition(status, "SLOMet") == "True")
    with bed.cluster.history(scene.path().rpartition("/")[0]) as states:
        scene.service().demand = RUSH
        scene.until(lambda status: status.get("readyReplicas", 0) >= 3, deadline_s=90)
        scene.until(lambda status: condition(status, "SLOMet") == "True", deadline_s=120)
        levers = [each["lever"] for each in told(states) if each["reason"] != "Bounds"]
        assert "replicas" in levers
        assert "split" in levers[: levers.index("replicas")], "the quicker lever comes first"
        at_rest = len(told(states))
        time.sleep(CLOCK_S)
        assert len(told(states)) <= at_rest + 3, "a steady load moves nothing to and fro"
        peak = len(scene.nodes())
        scene.service().demand = QUIET
        scene.until(lambda status: status.get("readyReplicas", 0) < peak, deadline_s=120)
    assert all(each["reason"] and each["message"] for each in told(states))
    assert scene.service().failed == 0
    assert scene.service().resumed == 0


def test_counters_that_begin_again_are_no_news(scene: Scene, bed: Bed) -> None:
    scene.apply(autoscaling=QUICK)
    scene.until_ready(nodes=1)
    scene.service().demand = QUIET
    scene.until(lambda status: condition(status, "SLOMet") == "True")
    for router in scene.routers():
        bed.kubelet.crash(scene.namespace, router.start.name)
    eventually(lambda: len(scene.service().routers) == 2)
    status = scene.until(lambda status: condition(status, "SLOMet") == "True")
    assert status["slo"]["ttft"]["attainment"] > 0.9
    assert not scaled(status)


def test_a_node_that_does_not_keep_its_set_point_is_told(scene: Scene) -> None:
    scene.apply()
    scene.until_ready()
    scene.until(lambda status: condition(status, "SplitConverged") == "True")
    (node,) = scene.nodes()
    node.obeys = False
    status = scene.until(lambda status: condition(status, "SplitConverged") == "False", deadline_s=TRUTH_S)
    assert node.start.name in message(status, "SplitConverged")


# what takes longer than the replicas' clock: services that live side by side


@pytest.fixture(scope="module")
def unusable(bed: Bed) -> Iterator[Scene]:
    """Services of two nodes that have requests, each named after what is wrong with its reports."""
    with operator_bed.scene(bed) as scene:
        for mishap in MISHAPS:
            scene.apply(mishap, autoscaling=QUICK | {"minReplicas": 2})
        for mishap in MISHAPS:
            scene.until_ready(mishap, nodes=2)
            scene.service(mishap).demand = QUIET
        for mishap in MISHAPS:
            scene.until(lambda status: condition(status, "SLOMet") == "True", mishap)
            for pod in (*scene.nodes(mishap), *scene.routers(mishap)):
                pod.mishap = mishap
        yield scene


@pytest.mark.parametrize("mishap", MISHAPS)
def test_reports_that_cannot_be_used_are_told_and_levers_hold(unusable: Scene, mishap: Mishap) -> None:
    unusable.until(
        lambda status: condition(status, "MetricsAvailable") == "False", mishap, deadline_s=TRUTH_S
    )
    unusable.service(mishap).demand = RUSH  # nobody can know
    time.sleep(5)
    assert len(unusable.nodes(mishap)) == 2
    unusable.service(mishap).demand = QUIET
    for pod in (*unusable.nodes(mishap), *unusable.routers(mishap)):
        pod.mishap = Mishap.NONE
    status = unusable.until(
        lambda status: condition(status, "MetricsAvailable") == "True", mishap, deadline_s=30
    )
    assert not scaled(status)


@pytest.fixture(scope="module")
def held(bed: Bed) -> Iterator[Scene]:
    """Services of one node that had a rush for some time, and a reason each why the operator adds none."""
    with operator_bed.scene(bed) as scene:
        scene.apply("infeasible", autoscaling=QUICK, slo={"window": "10s", "ttft": {"targetMs": 1}})
        scene.apply("paused", autoscaling=QUICK, paused=True)
        scene.apply("advised", autoscaling=QUICK | {"advisory": True})
        scene.apply("outside", autoscaling=QUICK | {"mode": "External"})
        for name in ("infeasible", "paused", "advised", "outside"):
            scene.until_ready(name, nodes=1)
        scene.scale(2, "outside")
        scene.until_ready("outside", nodes=2)
        for name in ("paused", "advised", "outside"):
            scene.service(name).demand = RUSH
        scene.service("infeasible").demand = QUIET
        time.sleep(CLOCK_S)
        yield scene


def test_a_promise_that_no_node_can_keep_is_told_with_numbers_and_not_scaled_for(held: Scene) -> None:
    status = held.until(lambda status: condition(status, "SLOFeasible") == "False", "infeasible")
    assert "1 ms" in message(status, "SLOFeasible")
    assert len(held.nodes("infeasible")) == 1
    assert not scaled(status)


def test_paused_levers_do_not_move(held: Scene) -> None:
    status = held.until(lambda status: condition(status, "Paused") == "True", "paused")
    assert len(held.nodes("paused")) == 1
    assert not status.get("decisions")
    held.patch("paused", paused=False)
    eventually(lambda: len(held.nodes("paused")) > 1)


def test_an_advisor_says_what_it_would_do(held: Scene) -> None:
    held.until(lambda status: status.get("desiredReplicas", 0) > 1, "advised")
    assert len(held.nodes("advised")) == 1


def test_an_outside_autoscaler_is_the_only_one_who_decides_on_nodes(held: Scene, bed: Bed) -> None:
    scale = bed.cluster.get(f"{held.path('outside')}/scale")
    assert scale["spec"]["replicas"] == scale["status"]["replicas"] == 2
    found = bed.cluster.get(held.pods, labelSelector=scale["status"]["selector"])
    assert len(found["items"]) == len(held.nodes("outside")) == 2
