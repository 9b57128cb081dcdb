"""Conditions name what is wrong and what to do about it, in the words of the pods' own status."""

from __future__ import annotations

from typing import Any

import pytest

from drift_operator.reconciling import conditions, faults, pods
from drift_operator.reconciling.views import View
from drift_operator.reconciling.workloads import Workload

Object = dict[str, Any]

NOW_S = pods.unix_s("2026-01-01T00:10:00Z")

WORKLOAD = Workload(wanted=1, seen=True, present=1, updated=1, ready=0, available=0, failure=None)


def pod(container: Object | None = None, **states: Object) -> pods.Pod:
    """With a host. `states`: conditions by type; `container`: its status."""
    told = {"PodScheduled": {"status": "True"}, **states}
    return pods.read(
        {
            "metadata": {"name": "chat-node-1", "uid": "1", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "status": {
                "phase": "Pending",
                "conditions": [{"type": kind, **state} for kind, state in told.items()],
                "containerStatuses": [container] if container is not None else [],
            },
        }
    )


def waiting(why: str, told: str = "", **last: Any) -> Object:
    state = {"waiting": {"reason": why, **({"message": told} if told else {})}}
    return {
        "state": state,
        "lastState": {"terminated": last} if last else {},
        "restartCount": 3 if last else 0,
    }


def seen(*found: pods.Pod, **changes: Any) -> View:
    view: dict[str, Any] = {
        "generation": 1,
        "wanted": 1,
        "nodes": WORKLOAD,
        "routers": WORKLOAD,
        "node_pods": found,
        "router_pods": (),
        "reports": {},
        "eligible": 1,
        "unix_s": NOW_S,
    }
    return View(**(view | changes))


UNMOUNTED = {"PodReadyToStartContainers": {"status": "False", "lastTransitionTime": "2026-01-01T00:09:00Z"}}


@pytest.mark.parametrize(
    ("found", "reason", "words"),
    [
        (
            pod(waiting("ImagePullBackOff", 'Back-off pulling image "engine:9"')),
            "ImageUnavailable",
            ["engine:9", "spec.engine.image"],
        ),
        (
            pod(
                waiting(
                    "CrashLoopBackOff", "back-off 5m0s", exitCode=1, message="line\nerror: no config.json\n"
                )
            ),
            "ContainerCrashes",
            ["exit code 1", "error: no config.json", "kubectl logs --previous chat-node-1"],
        ),
        (
            pod(waiting("CrashLoopBackOff", "back-off 5m0s", exitCode=137, reason="OOMKilled")),
            "ContainerCrashes",
            ["OOMKilled"],
        ),
        (
            pod(
                PodScheduled={
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": "2 Insufficient nvidia.com/gpu",
                }
            ),
            "Unschedulable",
            ["Insufficient nvidia.com/gpu", "spec.engine.resources"],
        ),
        (
            pod(waiting("CreateContainerConfigError", 'secret "x" not found')),
            "PodFailing",
            ['secret "x" not found'],
        ),
        (pod(waiting("ContainerCreating"), **UNMOUNTED), "PodWaits", ["kubectl describe pod chat-node-1"]),
    ],
)
def test_a_pod_that_does_not_come_up_is_degraded_and_named_with_what_to_do(
    found: pods.Pod, reason: str, words: list[str]
) -> None:
    fact = conditions.degraded(seen(found), was_ready=False)
    assert (fact.status, fact.reason) == ("True", reason)
    assert all(word in fact.message for word in ["chat-node-1", *words]), fact.message
    assert conditions.ready(seen(found), was_ready=False).status == "False"


def test_a_pod_that_just_began_to_wait_for_its_volumes_is_no_fault() -> None:
    found = pod(waiting("ContainerCreating"), **UNMOUNTED)
    early = seen(found, unix_s=NOW_S - 60 + faults.WAITS_S / 2)
    assert conditions.degraded(early, was_ready=False).status == "False"


def test_a_fault_that_stays_is_told_in_the_same_words() -> None:
    """Each other sentence would be written into the status."""
    first = pod(waiting("CrashLoopBackOff", "back-off 10s", exitCode=1, message="error: no config.json"))
    later = pod(waiting("CrashLoopBackOff", "back-off 20s", exitCode=1, message="error: no config.json"))
    assert conditions.degraded(seen(first), was_ready=False) == conditions.degraded(
        seen(later, unix_s=NOW_S + 100), was_ready=False
    )


def test_a_missing_secret_of_api_keys_is_named_before_the_pods_that_wait_for_it() -> None:
    view = seen(router_pods=(pod(waiting("ContainerCreating"), **UNMOUNTED),), missing="chat-keys")
    fact = conditions.degraded(view, was_ready=False)
    assert fact.reason == "SecretMissing"
    assert fact.message.startswith("Secret chat-keys")
    assert "chat-keys" in conditions.router_ready(view).message


def test_a_pod_that_outlives_its_time_is_told_with_its_host_and_not_waited_for() -> None:
    found = pods.read(
        {
            "metadata": {
                "name": "chat-node-1",
                "uid": "1",
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "deletionTimestamp": "2026-01-01T00:09:00Z",
            },
            "spec": {"nodeName": "gpu-7"},
        }
    )
    fact = conditions.degraded(seen(found), was_ready=True)
    assert fact.reason == "HostSilent"
    assert "kubectl delete node gpu-7" in fact.message
    assert conditions.progressing(seen(found)).reason != "Draining"
    in_time = seen(found, unix_s=NOW_S - 61)
    assert conditions.degraded(in_time, was_ready=True).status == "False"
    assert conditions.progressing(in_time).reason == "Draining"


def test_a_foreign_provider_of_metrics_is_why_an_hpa_does_not_scale() -> None:
    assert conditions.of_metrics_provider(None) == {}
    fact = conditions.of_metrics_provider("APIService leads to keda/keda")["ScalingActive"]
    assert (fact.status, fact.reason) == ("False", "ForeignProvider")
    assert "keda/keda" in fact.message
