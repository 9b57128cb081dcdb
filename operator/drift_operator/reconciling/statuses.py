"""The status that users see, as the API's object. Rounded, so that a steady service writes nothing."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from drift_engine import wire
from drift_operator.driftservice import DriftService
from drift_operator.levers.decisions import Fact
from drift_operator.objects import names
from drift_operator.reconciling.conditions import merged
from drift_operator.reconciling.pods import Pod
from drift_operator.reconciling.views import View
from drift_operator.status import DECISIONS_SHOWN, NODES_SHOWN

Object = dict[str, Any]

FIGURES = ("slo", "nodes", "decodeSMs")
"""What moves with every request while a service is busy: written less often than the rest."""


def timestamp(unix_s: float) -> str:
    return datetime.datetime.fromtimestamp(unix_s, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def of_broken_spec(previous: Object, facts: Mapping[str, Fact], generation: int, unix_s: float) -> Object:
    """All else stays as it was: what runs goes on."""
    kept = {
        str(each["type"]): Fact(each["status"], each["reason"], each.get("message", ""))
        for each in previous.get("conditions") or ()
    }
    conditions = merged(previous.get("conditions") or (), kept | dict(facts), generation, timestamp(unix_s))
    return {**previous, "observedGeneration": generation, "conditions": conditions}


def made(
    service: DriftService,
    view: View,
    facts: Mapping[str, Fact],
    previous: Object,
    *,
    url: str,
    slo: Object | None,
    desired: int | None,
    weights: Mapping[str, float],
    epochs: Mapping[str, int],
    decisions: Sequence[Object],
    unix_s: float,
) -> Object:
    """`weights` and `epochs` are what nodes were last sent; `decisions` are new ones, newest first."""
    conditions = merged(previous.get("conditions") or (), facts, view.generation, timestamp(unix_s))
    staying = [pod for pod in view.node_pods if not pod.leaving]
    nodes = view.nodes
    status: Object = {
        "observedGeneration": view.generation,
        "conditions": conditions,
        # Without those that leave, and without a rollout's surplus: an autoscaler divides by it.
        "replicas": min(len(staying), view.wanted),
        "readyReplicas": len(view.serving),
        "updatedReplicas": nodes.updated if nodes is not None else 0,
        "availableReplicas": nodes.available if nodes is not None else 0,
        "drainingReplicas": len(view.leaving),
        "desiredReplicas": view.wanted if desired is None else desired,
        "selector": names.selector_text(service.metadata.name, names.NODE),
        "slo": slo,
        "decodeSMs": _decode_sms(view),
        "url": url,
        "nodes": [
            _node(pod, view.reports.get(pod.name), weights.get(pod.name), epochs.get(pod.name))
            for pod in sorted(view.node_pods, key=lambda pod: pod.name)[:NODES_SHOWN]
        ],
        "decisions": [*decisions, *(previous.get("decisions") or ())][:DECISIONS_SHOWN],
    }
    return {key: value for key, value in status.items() if value is not None}


def worth_writing(status: Object, written: Object, since_s: float, figures_every_s: float) -> bool:
    """`since_s` after the last one was written."""
    if status == written:
        return False
    if since_s >= figures_every_s:
        return True
    return any(status.get(key) != written.get(key) for key in {*status, *written} - set(FIGURES))


def _decode_sms(view: View) -> str | None:
    found = sorted(
        {
            report.split.decode_sms
            for pod in view.serving
            if (report := view.reports.get(pod.name)) is not None and report.split is not None
        }
    )
    if not found:
        return None
    return str(found[0]) if len(found) == 1 else f"{found[0]}-{found[-1]}"


def _node(pod: Pod, report: wire.Report | None, weight: float | None, epoch: int | None) -> Object:
    node: Object = {"name": pod.name, "ready": pod.ready, "draining": pod.leaving}
    if epoch is not None:
        node["epochSent"] = epoch
    if weight is not None:
        node["weight"] = round(weight, 2)
    if report is not None:
        if report.split is not None:
            node |= {"decodeSMs": report.split.decode_sms, "prefillSMs": report.split.prefill_sms}
        node |= {"epochAcknowledged": report.epoch, "kvUse": round(min(max(report.kv_usage, 0.0), 1.0), 2)}
        if report.prompt_tokens_total > 0:
            share = report.cached_tokens_total / report.prompt_tokens_total
            node["hitRate"] = round(min(max(share, 0.0), 1.0), 2)
    return node
