"""What is known of two services, the same at every call: of one that keeps its promise, and one that is pressed."""

from __future__ import annotations

import datetime
import math
from dataclasses import replace
from typing import Any

import node_reports
from drift_engine import wire
from drift_operator import manifests
from drift_operator.console.seen import Heard, ServiceSeen
from drift_operator.doors.figures import ServiceFigures, TargetFigures
from drift_operator.fields import seconds
from drift_operator.levers.attainment import FAST_S, Judged, Ledger, Sums, Track
from drift_operator.status import Condition, Decision, NodeStatus
from drift_router.counters import Histogram
from drift_router.options import Promise
from drift_router.pictures import RouterReport, Totals
from drift_router.promises import at_first
from drift_router.recent_decisions import Decided
from drift_router.snapshots import Reason, Score

START_S = 10_000.0
START_UNIX_S = datetime.datetime(2026, 3, 1, 2, 30, tzinfo=datetime.UTC).timestamp()
SMS = 132


class SeenServices:
    """A `Known` with a clock of its own."""

    def __init__(self, *services: ServiceSeen) -> None:
        self.now_s = START_S
        self.services = list(services)

    def seen(self) -> list[ServiceSeen]:
        return self.services

    def clock(self) -> float:
        return self.now_s

    def wall_clock(self) -> float:
        return START_UNIX_S + self.now_s - START_S


def stamp(age_s: float, now_s: float) -> str:
    then = datetime.datetime.fromtimestamp(START_UNIX_S + now_s - START_S - age_s, datetime.UTC)
    return then.strftime("%Y-%m-%dT%H:%M:%SZ")


def condition(
    kind: str, status: str, reason: str, message: str, *, time: str = "2026-03-01T02:00:00Z"
) -> Condition:
    return Condition.model_validate(
        {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": time}
    )


READY = condition("Ready", "True", "Serving", "2 of 2 nodes serve")
KEPT = condition("SLOMet", "True", "Kept", "99.6 % of TTFT and 99.9 % of TBT over 5m")


def figures(name: str = "chat", now_s: float = START_S, **changes: Any) -> ServiceFigures:
    """Of a service that does well."""
    usual = ServiceFigures(
        "team-a",
        name,
        measured_s=now_s - 0.4,
        pressure=0.62,
        desired_replicas=2,
        present_replicas=2,
        ttft=TargetFigures(400, 0.99, 0.996, 1840, 120.0, 372.0, {"1m": 0.4, "10m": 0.5}),
        tbt=TargetFigures(80, 0.99, 0.999, 1840, 22.0, 61.0, {"1m": 0.1, "10m": 0.1}),
        feasible=True,
        url=f"http://{name}.team-a.svc/v1",
        conditions=(READY, KEPT),
        nodes=tuple(node_status(f"{name}-node-{place}") for place in range(2)),
    )
    return replace(usual, **changes)


def node_status(name: str, **changes: Any) -> NodeStatus:
    usual = {"name": name, "ready": True, "weight": 0.5, "kvUse": 0.5, "hitRate": 0.43}
    return NodeStatus.model_validate(usual | changes)


def report(decode_sms: int | None, now_s: float, kv_usage: float = 0.5) -> wire.Report:
    """Of a node that works three quarters of the time, some of it on one lane alone."""
    past_s = now_s - START_S
    worked_s = 0.75 * past_s
    decode_s = 0.2 * past_s - 16 * math.cos(past_s / 120) + 16
    prefill_s = 0.12 * past_s + 10 * math.cos(past_s / 150) - 10
    split = None if decode_sms is None else wire.Split(decode_sms, SMS - decode_sms)
    return node_reports.report(
        mode=wire.Mode.MUX,
        running=14,
        waiting=3,
        in_flight=17,
        queued_tokens=5200,
        kv_usage=kv_usage,
        split=split,
        bounds=(24, 96),
        tbt_p99_ms=61.0,
        uptime_s=now_s - START_S + 100,
        activity_s_total={
            wire.Activity.DECODE: decode_s,
            wire.Activity.PREFILL: prefill_s,
            wire.Activity.MUX: worked_s - decode_s - prefill_s,
        },
    )


def counts(median_s: float, requests: int, edges_s: tuple[float, ...]) -> dict[float, int]:
    """Log-normal, about."""
    found = {}
    for edge in edges_s:
        share = math.exp(-((math.log(edge / median_s) / 0.9) ** 2))
        if (count := round(requests * share)) > 0:
            found[edge] = count
    return found


TTFT_S = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)
TBT_S = (0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.08, 0.1)


def ledger(counted: Sums) -> Ledger:
    """Of a service whose routers counted just that."""
    slo = manifests.default().spec.slo
    held = ((0, counted),)
    return replace(
        Ledger.empty(slo, START_S), fast=Track(FAST_S, held), window=Track(seconds(slo.window), held)
    )


def counted(missed: int = 3, requests: int = 372) -> Sums:
    return Sums(
        requests=requests,
        ttft=Judged(requests - missed, missed),
        tbt=Judged(requests - 1, 1),
        ttft_s=counts(0.12 if missed < 10 else 0.28, requests // 3, TTFT_S),
        tbt_s=counts(0.024, 30 * requests, TBT_S),
    )


def decided(node: str, age_s: float, matched_tokens: int = 1536) -> Decided:
    service = node.partition("-node-")[0]
    scores = tuple(
        Score(
            name=f"{service}-node-{place}",
            matched_tokens=matched_tokens if place == 0 else 0,
            uncached_tokens=2048 - (matched_tokens if place == 0 else 0),
            ttft_s=0.09 + 0.14 * place,
            ttft_budget_s=0.4,
            tbt_s=0.031 + 0.004 * place,
            headroom=0.77 - 0.35 * place,
            cost_s=0.09 + 0.14 * place,
        )
        for place in range(2)
    )
    return Decided(age_s, node, Reason.STICKY, 2048, matched_tokens, 2048 - matched_tokens, 0.09, 2, scores)


def router_report(*last: Decided) -> RouterReport:
    empty = Histogram.over((0.1, 1.0))
    totals = Totals(100.0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, empty, empty, ())
    return RouterReport(
        workers=1,
        worker_restarts=0,
        draining=False,
        nodes=2,
        eligible_nodes=2,
        nodes_problem="",
        in_flight=17,
        queue_depth=0,
        window_s=60.0,
        requests_per_s=6.2,
        rejected_per_s=0.0,
        prompt_tokens_per_s=1000.0,
        predicted_hit_ratio=0.4,
        confirmed_hit_ratio=0.4,
        ttft_p50_s=0.1,
        ttft_p99_s=0.3,
        tbt_p50_s=0.02,
        tbt_p99_s=0.06,
        attainment={},
        promise=at_first(Promise()),
        totals=totals,
        decided=last,
    )


def kept(now_s: float = START_S, **changes: Any) -> ServiceSeen:
    """A service that does well, with two nodes and a router."""
    usual = ServiceSeen(
        figures("chat", now_s),
        "drift-tiny",
        None,
        ledger(counted()),
        {f"chat-node-{place}": Heard(report(48 + 16 * place, now_s), now_s - 0.4) for place in range(2)},
        {
            "chat-router-0": Heard(
                router_report(decided("chat-node-0", 1.0), decided("chat-node-1", 2.0, 0)), now_s - 0.4
            )
        },
    )
    return replace(usual, **changes)


def pressed(now_s: float = START_S) -> ServiceSeen:
    """A service that misses its promise since ten minutes ago, and does something about it."""
    part = min(1.0, max(0.0, (now_s - START_S) / 900))
    wave = math.sin(14 * part)
    missed = round(4 + 26 * part)
    decode_sms = [8 * round((64 - 32 * part + 10 * wave) / 8), 8 * round((56 - 24 * part - 8 * wave) / 8)]
    met = condition(
        "SLOMet", "False", "Missed", "94.1 % of TTFT over 5m are fewer than 99 %", time=stamp(410, now_s)
    )
    more = condition(
        "Progressing", "True", "NodesStarting", "1 of 3 nodes loads the model", time=stamp(35, now_s)
    )
    shown = figures(
        "search",
        now_s,
        pressure=round(0.7 + 0.42 * part + 0.05 * wave, 3),
        desired_replicas=3,
        ttft=TargetFigures(400, 0.99, 0.941, 2210, 240.0, 930.0, {"1m": 7.9, "10m": 4.2}),
        url="http://search.team-a.svc/v1",
        conditions=(READY, met, more),
        nodes=(
            node_status("search-node-0"),
            node_status("search-node-1"),
            node_status("search-node-2", ready=False, weight=0.0),
        ),
        decisions=tuple(
            Decision.model_validate(each)
            for each in (
                {
                    "time": stamp(41, now_s),
                    "lever": "replicas",
                    "from": "2",
                    "to": "3",
                    "reason": "PressureHigh",
                    "message": "pressure 1.09 is above 0.85 for 30 s",
                },
                {
                    "time": stamp(180, now_s),
                    "lever": "split",
                    "node": "search-node-0",
                    "from": "24-96",
                    "to": "24-72",
                    "reason": "PrefillShort",
                    "message": "first tokens burn 4.2 times what is allowed, gaps 0.1 times",
                },
            )
        ),
    )
    nodes = {
        f"search-node-{place}": Heard(report(sms, now_s, 0.4 + 0.4 * part), now_s - 0.4)
        for place, sms in enumerate(decode_sms)
    }
    return ServiceSeen(
        shown,
        "qwen3-8b",
        None,
        ledger(counted(missed, round(FAST_S * (4 + 4 * part + wave)))),
        nodes,
        {"search-router-0": Heard(router_report(decided("search-node-0", 0.4)), now_s - 0.4)},
    )
