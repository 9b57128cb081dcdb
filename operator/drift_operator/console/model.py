"""The document behind the page: all services in a line each, and one of them in full. Pure; units are in the names.

Unknown numbers are null: never zero, and never the last ones that were known.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from typing import Any

from drift_engine import wire
from drift_operator.console import verdicts
from drift_operator.console.seen import Heard, ServiceSeen
from drift_operator.console.trails import Trails
from drift_operator.console.verdicts import Verdict
from drift_operator.doors.figures import TargetFigures
from drift_operator.levers.attainment import FAST_S, Counts
from drift_operator.levers.observations import STALE_S
from drift_operator.status import NodeStatus
from drift_router.counters import TBT_EDGES_S, TTFT_EDGES_S
from drift_router.pictures import RouterReport
from drift_router.recent_decisions import KEPT, Decided
from drift_router.snapshots import Score

MOST_SERVICES = 200
"""In the list, the most urgent first: 40 KB, every two seconds. Beyond, their number is told."""

MOST_DRAWN = 16
"""Nodes with a history, the first by name: 75 KB. Others are told as they are now."""

Json = dict[str, Any]
Key = tuple[str, str]

ORDER = {verdict: place for place, verdict in enumerate(Verdict)}


def document(
    services: Sequence[ServiceSeen],
    trails: Trails,
    chosen: Key | None,
    *,
    now_s: float,
    unix_s: float,
    chat: bool,
) -> Json:
    """`chosen`: the service to tell in full. `now_s` and `unix_s` are one moment. `chat`: a token lets people ask."""
    judged = sorted(
        ((*verdicts.judge(service.figures, now_s), service) for service in services),
        key=lambda each: (ORDER[each[0]], each[2].key),
    )
    full = next((each for each in judged if each[2].key == chosen), None)
    return {
        "unix_s": round(unix_s, 3),
        "chat": chat,
        "services": [_line(*each, now_s) for each in judged[:MOST_SERVICES]],
        "services_left_out": max(0, len(judged) - MOST_SERVICES),
        "service": None if full is None else _full(*full, trails, now_s, unix_s),
    }


def _line(verdict: Verdict, why: str, service: ServiceSeen, now_s: float) -> Json:
    figures = service.figures
    return {
        "namespace": figures.namespace,
        "name": figures.name,
        "verdict": verdict,
        "why": why,
        "ttft_attainment": _number(figures.ttft.attainment if figures.ttft is not None else None),
        "tbt_attainment": _number(figures.tbt.attainment if figures.tbt is not None else None),
        "pressure": _number(figures.pressure_at(now_s)),
        "ready_nodes": sum(node.ready and not node.draining for node in figures.nodes),
        "age_s": _number(figures.age_s(now_s)),
    }


def _full(
    verdict: Verdict, why: str, service: ServiceSeen, trails: Trails, now_s: float, unix_s: float
) -> Json:
    figures, minute, window = service.figures, service.minute, service.window
    window_s = service.ledger.window.horizon_s if service.ledger is not None else None
    fresh = figures.why_unknown(now_s) is None
    return {
        **_line(verdict, why, service, now_s),
        "model": service.model,
        "url": figures.url,
        "can_chat": service.chat_url is not None,
        "desired_replicas": figures.desired_replicas_at(now_s),
        "present_replicas": figures.present_replicas,
        "requests_per_s": _number(minute.requests / FAST_S) if fresh else None,
        "overloaded_last_minute": minute.overloaded if fresh else None,
        "failed_last_minute": minute.failed if fresh else None,
        "promises": [
            _promise("ttft", figures.ttft, window.ttft_s, TTFT_EDGES_S, window_s),
            _promise("tbt", figures.tbt, window.tbt_s, TBT_EDGES_S, window_s),
        ],
        "concerns": [
            {
                "condition": found.type,
                "status": found.status,
                "reason": found.reason,
                "message": found.message,
                "fault": fault,
                "for_s": _since(found.last_transition_time, unix_s),
            }
            for fault, found in verdicts.concerns(figures)
        ],
        "nodes": _nodes(service, trails, now_s),
        "most_drawn": MOST_DRAWN,
        "history": {"step_s": trails.step_s, "points": trails.points, **trails.service(service.key)},
        "routed": _routed(service.routers, now_s),
        "decisions": [
            {
                "time": one.time,
                "age_s": _since(one.time, unix_s),
                "lever": one.lever,
                "node": one.node,
                "from": one.before,
                "to": one.after,
                "reason": one.reason,
                "message": one.message or "",
            }
            for one in figures.decisions
        ],
    }


def _promise(
    name: str, target: TargetFigures | None, counts: Counts, edges_s: Sequence[float], window_s: float | None
) -> Json | None:
    """With how long requests took over the promise's window, in the routers' buckets."""
    if target is None:
        return None
    return {
        "name": name,
        "target_ms": target.target_ms,
        "objective": target.objective,
        "attainment": _number(target.attainment),
        "requests": target.requests,
        "p50_ms": _number(target.p50_ms),
        "p99_ms": _number(target.p99_ms),
        "burn_rates": {window: _number(rate) for window, rate in target.burn_rates.items()},
        "distribution": {"window_s": window_s, "buckets": _buckets(counts, edges_s, target.target_ms / 1e3)},
    }


def _buckets(counts: Counts, edges_s: Sequence[float], target_s: float) -> list[Json]:
    """From the first to the last that has anything in it or touches the target; none where nothing was counted."""
    if not counts:
        return []
    all_edges = sorted({*edges_s, *counts, target_s} - {math.inf})
    found = [
        {"up_to_ms": _number(1e3 * edge), "count": counts.get(edge, 0), "late": edge > target_s}
        for edge in all_edges
    ]
    found.append({"up_to_ms": None, "count": counts.get(math.inf, 0), "late": True})
    shown = [place for place, one in enumerate(found) if one["count"]] + [all_edges.index(target_s)]
    return found[min(shown) : max(shown) + 1]


def _nodes(service: ServiceSeen, trails: Trails, now_s: float) -> list[Json]:
    """Those that there are, and those that were there within the trail."""
    stated = {node.name: node for node in service.figures.nodes}
    histories = trails.nodes(service.key)
    return [
        {
            "name": name,
            **_state(stated.get(name), service.nodes.get(name), now_s),
            **_lanes(trails, service, name),
            "history": histories.get(name) if place < MOST_DRAWN else None,
        }
        for place, name in enumerate(sorted({*stated, *service.nodes, *histories}))
    ]


def _state(stated: NodeStatus | None, heard: Heard[wire.Report] | None, now_s: float) -> Json:
    report, age_s = (heard.report, now_s - heard.at_s) if heard is not None else (None, None)
    fresh = report is not None and age_s is not None and age_s <= STALE_S
    state = (
        "gone"
        if stated is None and heard is None
        else "draining"
        if (stated is not None and stated.draining) or (report is not None and report.draining)
        else "not ready"
        if stated is None or not stated.ready
        else "silent"
        if not fresh
        else "ready"
    )
    return {
        "state": state,
        "problem": heard.problem if heard is not None else "",
        "age_s": _number(age_s) if report is not None else None,
        "weight": _number(stated.weight) if stated is not None else None,
        "hit_rate": _number(stated.hit_rate) if stated is not None else None,
        **(_reported(report) if report is not None and fresh else {}),
    }


def _reported(report: wire.Report) -> Json:
    split, bounds = report.split, report.bounds
    return {
        "mode": report.mode,
        "decode_sms": split.decode_sms if split is not None else None,
        "prefill_sms": split.prefill_sms if split is not None else None,
        "bounds_sms": list(bounds) if bounds is not None else None,
        "kv_use": _number(report.kv_usage),
        "running": report.running,
        "waiting": report.waiting,
        "queued_tokens": report.queued_tokens,
        "prefill_tokens_per_s": _number(report.prefill_tokens_per_s),
        "tbt_p99_ms": _number(report.tbt_p99_ms),
    }


def _lanes(trails: Trails, service: ServiceSeen, node: str) -> Json:
    lanes = trails.lanes(service.key, node)
    return {
        "busy": _number(lanes.busy) if lanes is not None else None,
        "decode_bubble": _number(lanes.decode_bubble) if lanes is not None else None,
        "prefill_bubble": _number(lanes.prefill_bubble) if lanes is not None else None,
    }


def _routed(routers: Mapping[str, Heard[RouterReport]], now_s: float) -> list[Json]:
    """The last decisions of all routers, newest first."""
    found = [
        (now_s - heard.at_s + decided.age_s, router, decided)
        for router, heard in routers.items()
        if heard.report is not None
        for decided in heard.report.decided
    ]
    found.sort(key=lambda each: each[:2])
    return [_decided(age_s, router, decided) for age_s, router, decided in found[:KEPT]]


def _decided(age_s: float, router: str, decided: Decided) -> Json:
    return {
        "age_s": _number(max(0.0, age_s)),
        "router": router,
        "node": decided.node,
        "reason": decided.reason,
        "prompt_tokens": decided.prompt_tokens,
        "matched_tokens": decided.matched_tokens,
        "uncached_tokens": decided.uncached_tokens,
        "ttft_ms": _number(1e3 * decided.ttft_s),
        "nodes": decided.nodes,
        "scores": [_score(score, chosen=score.name == decided.node) for score in decided.scores],
    }


def _score(score: Score, *, chosen: bool) -> Json:
    return {
        "node": score.name,
        "chosen": chosen,
        "matched_tokens": score.matched_tokens,
        "uncached_tokens": score.uncached_tokens,
        "ttft_ms": _number(1e3 * score.ttft_s),
        "ttft_budget_ms": _number(1e3 * score.ttft_budget_s),
        "tbt_ms": _number(1e3 * score.tbt_s),
        "headroom": _number(score.headroom),
        "cost_ms": _number(1e3 * score.cost_s),
    }


def _since(timestamp: str, unix_s: float) -> float | None:
    """Of one of the status' times; never negative, for clocks differ."""
    try:
        then = datetime.datetime.fromisoformat(timestamp)
    except ValueError:
        return None
    return round(max(0.0, unix_s - then.timestamp()), 1)


def _number(value: float | None) -> float | None:
    """Four digits are more than a picture shows."""
    if value is None:
        return None
    rounded = float(f"{value:.4g}")  # which makes an infinity of the largest numbers
    return rounded if math.isfinite(rounded) else None
