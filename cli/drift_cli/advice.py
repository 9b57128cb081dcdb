"""What to do about a condition's reason, in a sentence. docs/operations.md has more of each."""

from __future__ import annotations

from collections.abc import Mapping

ADVICE: Mapping[str, str] = {
    "InvalidSpec": "change what the message names and apply the DriftService again; what runs goes on meanwhile",
    "ScaledToZero": "set spec.replicas, or spec.autoscaling.minReplicas, to 1 or more",
    "RouterNotReady": "see RouterReady",
    "NoNodeReady": "kubectl describe pods -l app.kubernetes.io/component=node; a large model takes minutes to load",
    "RouterSeesNoNode": "wait some seconds; then look at the routers' log and at the NetworkPolicies",
    "RollingOut": "wait: old pods go when new ones serve; kubectl rollout status tells how far it is",
    "NodesStarting": "wait: nodes are loading the model; kubectl get pods -w shows how far they are",
    "Draining": "wait: nodes that leave finish their requests, for spec.rollout.drainTimeout at most",
    "DeploymentFailed": "kubectl describe the Deployment that the message names: quota, image or admission refuse it",
    "NotMade": "wait some seconds; then look at the operator's log",
    "NotAvailable": "kubectl describe pods -l app.kubernetes.io/component=router",
    "NoReport": "look at the routers' log: the operator can't reach their admin port (NetworkPolicies?)",
    "ApplyFailed": "the API server refused an object: the message says which and why; quota, admission and rights "
    "are the usual causes",
    "KindMissing": "install what has that kind (KEDA, the Prometheus Operator), or change the field that asks for it",
    "Unschedulable": "the cluster has no host for it: add one, ask for less in spec.engine.resources, or lower "
    "spec.autoscaling.maxReplicas",
    "SecretMissing": "make the Secret that spec.auth.apiKeysSecretRef names, with one entry for each key",
    "ImageUnavailable": "name an image that the cluster's hosts can pull, or correct the registry's Secret",
    "ContainerCrashes": "kubectl logs --previous the pod: memory, or a model that can't be read",
    "PodWaits": "kubectl describe the pod: a volume, Secret or network that it waits for is not there",
    "PodFailing": "kubectl describe the pod and kubectl logs: what it refers to, its memory, its probes",
    "HostSilent": "look at that host; where it is lost, kubectl delete node lets Kubernetes forget its pods",
    "ForeignProvider": "let KEDA scale (spec.autoscaling.mode), or remove the other provider of external metrics",
    "WaitingForNodes": "nothing at first: it is sent again every 2 s; then look at the named nodes' log",
    "NothingSent": "wait: a node is told something once it serves",
    "PausedByUser": "set spec.paused to false when the levers may move again",
    "Paused": "set spec.paused to false when the levers may move again",
    "ReportsMissing": "look at the pods that the message names; until they report the levers hold",
    "NoNodes": "see Ready",
    "SpeedUnknown": "wait: nodes tell their speed after their calibration",
    "TooSlowAlone": "promise less (spec.slo), take a faster device or shorter prompts; more nodes can't help",
    "Missed": "`drift explain` tells what the levers do about it, and what keeps them from more",
    "NoRequests": "nothing: there was no request to judge by",
    "Fixed": "to have Drift choose the number of nodes set spec.autoscaling instead of spec.replicas",
    "LoadUnknown": "see MetricsAvailable; a load is known after ten seconds of reports",
    "AtMaximum": "raise spec.autoscaling.maxReplicas, or promise less",
}


def on(reason: str) -> str | None:
    """None: nothing to be done, or nothing that we know of."""
    return ADVICE.get(reason)
