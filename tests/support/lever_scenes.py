"""Services, nodes and routers as the levers see them, to be changed where a test wants it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

import node_reports
import plant
from drift_engine import wire
from drift_operator import manifests
from drift_operator.driftservice import DriftService
from drift_operator.levers.observations import Node, Router
from drift_router.counters import LENGTH_EDGES_TOKENS, TBT_EDGES_S, TTFT_EDGES_S, Histogram
from drift_router.pictures import LengthClass, Totals


def service(spec: Mapping[str, Any] | None = None, *, generation: int = 1) -> DriftService:
    """Serving the embedded model, by its defaults where `spec` says nothing."""
    return manifests.parse(
        {
            "apiVersion": "drift.ai/v1alpha1",
            "kind": "DriftService",
            "metadata": {"name": "demo", "generation": generation},
            "spec": {"model": {"uri": "embedded://drift-tiny"}, **(spec or {})},
        }
    )


def scaled(least: int = 1, most: int = 8, **autoscaling: Any) -> DriftService:
    """By the operator, down at once."""
    stabilization = {"up": "0s", "down": "0s"}
    return service(
        {
            "autoscaling": {
                "minReplicas": least,
                "maxReplicas": most,
                "stabilization": stabilization,
                "predictor": "None",
                **autoscaling,
            }
        }
    )


def gpu_report(name: str = "a", **changes: Any) -> wire.Report:
    """Of an H200 with an 8B model, idle."""
    costs = plant.costs()
    return node_reports.report(
        **{
            "node": name,
            "mode": wire.Mode.AUTO,
            "legal_splits": tuple(wire.Split(one.decode_sms, one.prefill_sms) for one in costs),
            "costs": costs,
            "whole": plant.whole(),
            "kv_pages_total": 50_000,
            "max_running": 256,
            "max_in_flight": 1024,
            "prefill_tokens_per_s": 40_000.0,
            **changes,
        }
    )


def node(name: str = "a", **changes: Any) -> Node:
    """Serving; what is no field of Node is one of its report."""
    own = {key: changes.pop(key) for key in ("ready", "leaving", "started_s", "age_s") if key in changes}
    return Node(name, gpu_report(name, **changes), **{"age_s": 0.5, "ready": True, **own})


def nodes(count: int, **changes: Any) -> tuple[Node, ...]:
    return tuple(node(f"n{index}", **changes) for index in range(count))


def totals(
    *,
    prompts: tuple[int, int] = (0, 0),
    gaps: tuple[int, int] = (0, 0),
    length_tokens: int = 1000,
    output_tokens: int = 0,
    uptime_s: float = 1000.0,
    **changes: Any,
) -> Totals:
    """Requests whose first token was in time and not, and whose gaps were; all of one uncached length."""
    requests = sum(prompts)
    place = next(
        (i for i, edge in enumerate(LENGTH_EDGES_TOKENS) if length_tokens <= edge), len(LENGTH_EDGES_TOKENS)
    )
    classes = tuple(
        LengthClass(edge, requests, requests * length_tokens, *prompts)
        if index == place
        else LengthClass(edge, 0, 0, 0, 0)
        for index, edge in enumerate((*LENGTH_EDGES_TOKENS, None))
    )
    return Totals(
        **{
            "uptime_s": uptime_s,
            "requests": requests,
            "overloaded": 0,
            "failed": 0,
            "prompt_tokens": requests * length_tokens,
            "cached_tokens": 0,
            "output_tokens": output_tokens,
            "ttft_kept": prompts[0],
            "ttft_missed": prompts[1],
            "tbt_kept": gaps[0],
            "tbt_missed": gaps[1],
            "ttft": histogram(TTFT_EDGES_S, {0.1: prompts[0], 2.0: prompts[1]}),
            "tbt": histogram(TBT_EDGES_S, {0.02: gaps[0], 0.3: gaps[1]}),
            "classes": classes,
            **changes,
        }
    )


def histogram(edges: Sequence[float], counts: Mapping[float, int]) -> Histogram:
    made = Histogram.over(edges)
    for value, count in counts.items():
        index = next((i for i, edge in enumerate(made.edges) if value <= edge), len(made.edges))
        made.counts[index] += count
    return made


def router(name: str = "r", **changes: Any) -> Router:
    """What is no field of Router is one of `totals`."""
    own = {key: changes.pop(key) for key in ("in_flight", "queue_depth", "age_s") if key in changes}
    return Router(name, totals(**changes), **{"age_s": 0.5, **own})


def changed(report: wire.Report, **changes: Any) -> wire.Report:
    return msgspec.structs.replace(report, **changes)
