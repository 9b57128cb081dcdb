"""What is wrong with a service that does not mend itself, each with what a person can do about it.

In: all that is seen of it. Out: reasons and sentences, the first one to begin with; `conditions` make Degraded of it.
Sentences stay the same for as long as the fault does: each other one would be written into the status.
"""

from __future__ import annotations

from collections.abc import Iterator

from drift_operator.reconciling.pods import Pod
from drift_operator.reconciling.views import View

Fault = tuple[str, str]
"""Reason and message."""

WAITS_S = 30.0
"""For volumes and network of a pod: the kubelet tries again within 2 s, a disk is attached in 10 to 20. Estimate."""


STAYS_S = 30.0
"""Beyond its grace period: the kubelet kills within 2 s, and unmounts within some more. Estimate."""


def of(view: View, *, was_ready: bool) -> Iterator[Fault]:
    pods = [pod for pod in (*view.node_pods, *view.router_pods) if not pod.leaving]
    for refusal in view.refused:
        yield "ApplyFailed", refusal
    for kind in view.lacking:
        yield "KindMissing", f"this cluster does not know {kind}"
    if view.missing:
        yield "SecretMissing", missing(view.missing)
    found = [fault for pod in pods if (fault := of_pod(pod, view.unix_s)) is not None]
    yield from (fault for fault in found if fault[0] == "Unschedulable")
    yield from (fault for fault in found if fault[0] != "Unschedulable")
    for pod in (*view.node_pods, *view.router_pods):
        if pod.ends_s is not None and view.unix_s - pod.ends_s >= STAYS_S:
            yield (
                "HostSilent",
                f"pod {pod.name}: its time to go is over, and host {pod.host} does not say that it is gone; "
                f"if the host is lost, kubectl delete node {pod.host}",
            )
    for pod in pods:
        if pod.ready or view.rolling or of_pod(pod, view.unix_s) is not None:
            continue
        if pod.restarts:
            said = f", the last time with {pod.last_words}" if pod.last_words else ""
            yield "PodFailing", f"pod {pod.name}: not ready, and it ended before{said}; {_logs(pod)}"
        elif was_ready and pod.started:
            yield "PodFailing", f"pod {pod.name}: runs and is not ready; {_logs(pod)}"


def of_pod(pod: Pod, unix_s: float) -> Fault | None:
    """Why it can't come up."""
    if pod.unschedulable:
        return (
            "Unschedulable",
            f"pod {pod.name}: {pod.unschedulable}; add a host that has room for it, or ask for less "
            "(spec.engine.resources)",
        )
    if pod.stuck is not None:
        match pod.stuck.kind:
            case "image":
                return (
                    "ImageUnavailable",
                    f"pod {pod.name}: {pod.stuck.words}; name an image that the hosts can pull "
                    "(spec.engine.image, or the chart's), and the Secrets to pull it with",
                )
            case "crash":
                return (
                    "ContainerCrashes",
                    f"pod {pod.name}: it ends again and again, with {pod.last_words or pod.stuck.words}; "
                    f"{_logs(pod)}",
                )
            case "setup":
                return "PodFailing", f"pod {pod.name}: {pod.stuck.words}"
    if pod.waits_since_s is not None and unix_s - pod.waits_since_s >= WAITS_S:
        return (
            "PodWaits",
            f"pod {pod.name}: its volumes or its network are not there for {WAITS_S:g} s and more; "
            f"kubectl describe pod {pod.name} tells which",
        )
    return None


def missing(secret: str) -> str:
    return (
        f"Secret {secret}, which spec.auth.apiKeysSecretRef names, is not there, and no router starts without it; "
        "make it, with one entry for each key"
    )


def _logs(pod: Pod) -> str:
    previous = "--previous " if pod.restarts else ""
    return f"{pod.log or f'kubectl logs {previous}{pod.name}'} has more"
