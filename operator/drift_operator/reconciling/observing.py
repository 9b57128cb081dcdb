"""Pods and their reports as the levers want to see them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from drift_engine import wire
from drift_operator.levers.observations import Node, Observation, Replicas, Router
from drift_operator.reconciling.pods import Pod
from drift_operator.reconciling.sightings import Sighting
from drift_router.pictures import RouterReport


def observe(
    node_pods: Sequence[Pod],
    router_pods: Sequence[Pod],
    nodes: Mapping[str, Sighting[wire.Report]],
    routers: Mapping[str, Sighting[RouterReport]],
    staying: int,
    now_s: float,
    unix_s: float,
    *,
    routed: bool = True,
) -> Observation:
    """`staying`: nodes that the Deployment has, or begins with, without those that leave. `now_s` is of the levers'
    clock, which does not jump; `unix_s` is the same moment as the API server would say it.
    """
    present = [pod for pod in node_pods if not pod.leaving]
    homeless = [pod.unschedulable for pod in present if pod.unschedulable]
    return Observation(
        tuple(_node(pod, nodes.get(pod.name), now_s, unix_s) for pod in node_pods),
        tuple(
            _router(pod, seen, now_s) for pod in router_pods if (seen := routers.get(pod.name)) is not None
        ),
        Replicas(
            wanted=staying,
            present=len(present),
            pending=sum(not pod.ready for pod in present),
            unschedulable=len(homeless),
            why=homeless[0] if homeless else "",
        ),
        routed,
    )


def _node(pod: Pod, seen: Sighting[wire.Report] | None, now_s: float, unix_s: float) -> Node:
    return Node(
        pod.name,
        report=seen.report if seen else None,
        age_s=now_s - seen.at_s if seen and seen.report else math.inf,
        ready=pod.ready,
        leaving=pod.leaving,
        started_s=now_s - max(0.0, unix_s - pod.created_s),
        problem=(seen.trouble if seen else None) or "",
    )


def _router(pod: Pod, seen: Sighting[RouterReport], now_s: float) -> Router:
    report = seen.report
    return Router(
        pod.name,
        totals=report.totals if report else None,
        in_flight=report.in_flight if report else 0,
        queue_depth=report.queue_depth if report else 0,
        age_s=now_s - seen.at_s if report else math.inf,
        problem=seen.trouble or "",
    )
