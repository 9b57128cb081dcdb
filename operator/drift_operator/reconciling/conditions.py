"""The service's state as facts for people and machines (KEP-1623). docs/operations.md lists every reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from drift_operator.levers.decisions import Fact
from drift_operator.reconciling import faults
from drift_operator.reconciling.pods import Pod
from drift_operator.reconciling.views import View

Truth = Literal["True", "False", "Unknown"]
EventKind = Literal["Normal", "Warning"]

MESSAGE_CHARACTERS = 1024
"""A condition's message is for people; the API takes 4,096 characters."""

PODS_NAMED = 3


def yes(reason: str, message: str) -> Fact:
    return Fact("True", reason, message)


def no(reason: str, message: str) -> Fact:
    return Fact("False", reason, message)


def of_metrics_provider(foreign: str | None) -> dict[str, Fact]:
    """Of a service that an HPA scales. `foreign`: who else provides external metrics, in a sentence."""
    return {"ScalingActive": no("ForeignProvider", foreign)} if foreign is not None else {}


def of_cluster(view: View, *, was_ready: bool, paused: bool) -> dict[str, Fact]:
    """What is told by the cluster's objects; `levers` tell the rest."""
    return {
        "Ready": ready(view, was_ready=was_ready),
        "Progressing": progressing(view),
        "Degraded": degraded(view, was_ready=was_ready),
        "RouterReady": router_ready(view),
        "Paused": yes(
            "PausedByUser", "split, weights and number of nodes stay as they are: spec.paused is true"
        )
        if paused
        else no("NotPaused", "spec.paused is false"),
    }


def of_broken_spec(problems: Iterable[str]) -> dict[str, Fact]:
    """Nothing is done until the spec changes; what runs goes on."""
    message = "; ".join(problems)
    return {
        "Ready": no("InvalidSpec", message),
        "Progressing": no("InvalidSpec", "nothing is changed until the spec can be used"),
        "Degraded": yes("InvalidSpec", message),
    }


def ready(view: View, *, was_ready: bool) -> Fact:
    """Requests are answered, by what the spec says. It becomes true with the last node that is wanted, and stays so
    while any node serves: fewer of them are `Degraded`, more to come are `Progressing`."""
    serving = len(view.serving)
    front = router_ready(view)
    if view.wanted == 0 and serving == 0:
        return no("ScaledToZero", "no node is wanted, so no request is answered")
    if front.status != "True":
        return no("RouterNotReady", front.message)
    if serving == 0:
        return no(
            "NoNodeReady", _trouble(view.node_pods, view.unix_s) or f"none of {view.wanted} nodes is ready"
        )
    if view.rolling:
        return no("RollingOut", _rollout(view))
    if view.routed and not view.eligible:
        return no("RouterSeesNoNode", "nodes are ready, and the routers do not send to any of them yet")
    if not was_ready and serving < view.wanted:
        return no("NodesStarting", f"{serving} of {view.wanted} nodes are ready")
    return yes("Serving", f"{_counted(serving, 'node')} of {view.wanted} wanted answer requests")


def progressing(view: View) -> Fact:
    failure = next((each.failure for each in (view.nodes, view.routers) if each and each.failure), None)
    if failure:
        return no("DeploymentFailed", failure)
    if view.rolling:
        return yes("RollingOut", _rollout(view))
    if view.leaving:
        pods = [pod.name for pod in view.leaving]
        return yes(
            "Draining", f"{_counted(len(pods), 'node')} finishing requests before leaving: {_named(pods)}"
        )
    if len(view.serving) < view.wanted:
        return yes("NodesStarting", f"{len(view.serving)} of {view.wanted} nodes are ready")
    return no("Complete", f"{_counted(view.wanted, 'node')} as wanted")


def degraded(view: View, *, was_ready: bool) -> Fact:
    """Something that does not mend itself, or that worked and works no more. What starts is only `Progressing`."""
    found = list(faults.of(view, was_ready=was_ready))
    if not found:
        return no("AsExpected", "nothing is missing")
    return yes(found[0][0], "; ".join(text for _, text in found)[:MESSAGE_CHARACTERS])


def router_ready(view: View) -> Fact:
    if not view.routed:
        return yes("NotNeeded", "clients ask the only node itself")
    routers = view.routers
    if routers is None:
        return no("NotMade", "the routers' Deployment is not there yet")
    if routers.available == 0:
        why = faults.missing(view.missing) if view.missing else _trouble(view.router_pods, view.unix_s)
        return no("NotAvailable", why or f"none of {routers.wanted} routers is available")
    if view.eligible is None:
        return no("NoReport", "no router has told how it does")
    return yes("Available", f"{routers.available} of {routers.wanted} routers are available")


def merged(
    previous: Iterable[Mapping[str, object]], facts: Mapping[str, Fact], generation: int, now: str
) -> list[dict[str, object]]:
    """As the status keeps them: a transition's time moves only when `status` changes."""
    before = {str(each["type"]): each for each in previous}
    made: list[dict[str, object]] = []
    for kind, fact in facts.items():
        old = before.get(kind)
        same = old is not None and old.get("status") == fact.status
        made.append(
            {
                "type": kind,
                "status": fact.status,
                "reason": fact.reason,
                "message": fact.message[:MESSAGE_CHARACTERS],
                "lastTransitionTime": old["lastTransitionTime"] if same and old is not None else now,
                "observedGeneration": generation,
            }
        )
    return made


def _rollout(view: View) -> str:
    parts = []
    for part, workload in (("nodes", view.nodes), ("routers", view.routers)):
        if workload is None:
            parts.append(f"{part}: not made yet")
        elif workload.rolling:
            parts.append(f"{part}: {workload.updated} of {workload.present} have the present spec")
    return "; ".join(parts)


def _trouble(pods: Iterable[Pod], unix_s: float) -> str | None:
    return next((fault[1] for pod in pods if (fault := faults.of_pod(pod, unix_s)) is not None), None)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _named(pods: list[str]) -> str:
    more = f" and {len(pods) - PODS_NAMED} more" if len(pods) > PODS_NAMED else ""
    return ", ".join(pods[:PODS_NAMED]) + more


GOOD: Mapping[str, Truth] = {
    "Ready": "True",
    "Degraded": "False",
    "SLOMet": "True",
    "SLOFeasible": "True",
    "MetricsAvailable": "True",
    "ScalingLimited": "False",
}
"""Conditions whose turns are worth an event, with the status that is good news."""


def status_of(status: Mapping[str, Any], kind: str) -> str | None:
    return next((each["status"] for each in status.get("conditions") or () if each["type"] == kind), None)


def turns(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[EventKind, str, str]]:
    """Events for what changed between two statuses: (kind, reason, message). The first good news is none."""
    for each in after.get("conditions") or ():
        good = GOOD.get(each["type"])
        old = status_of(before, each["type"])
        if good is None or each["status"] == old or each["status"] == "Unknown":
            continue
        if each["status"] != good:
            if old is not None:
                yield "Warning", each["reason"], each["message"]
        elif each["type"] == "Ready" or old not in (None, "Unknown"):
            yield "Normal", each["reason"], each["message"]
