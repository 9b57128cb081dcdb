"""The figures as JSON documents: what KEDA polls, and what `drift status` and `drift explain` show. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from drift_operator.doors.figures import ServiceFigures, TargetFigures
from drift_operator.fields import Document

Json = dict[str, Any]


def listed(all_figures: Iterable[ServiceFigures], now_s: float) -> Json:
    """`GET /v1/services`: without nodes, conditions and decisions, by namespace and name."""
    ordered = sorted(all_figures, key=lambda figures: (figures.namespace, figures.name))
    return {"services": [_summary(figures, now_s) for figures in ordered]}


def full(figures: ServiceFigures, now_s: float) -> Json:
    """`GET /v1/services/{namespace}/{name}`."""
    return {
        **_summary(figures, now_s),
        "conditions": _documents(figures.conditions),
        "nodes": _documents(figures.nodes),
        "decisions": _documents(figures.decisions),
        "status": None if figures.status is None else _document(figures.status),
    }


def pressure(figures: ServiceFigures, now_s: float) -> Json | str:
    """`GET /v1/services/{namespace}/{name}/pressure`; text: why there is none, which has to be an error to KEDA."""
    if (why := figures.why_unknown(now_s)) is not None:
        return why
    found = figures.pressure_at(now_s)
    if found is None:
        return f"the pressure of service {figures.namespace}/{figures.name} is unknown"
    return {
        "pressure": found,
        "desired_replicas": figures.desired_replicas_at(now_s),
        "present_replicas": figures.present_replicas,
        "age_s": figures.age_s(now_s),
    }


def _summary(figures: ServiceFigures, now_s: float) -> Json:
    """Unknown numbers are null: never zero, and never the last ones that were known."""
    return {
        "namespace": figures.namespace,
        "name": figures.name,
        "url": figures.url,
        "pressure": figures.pressure_at(now_s),
        "desired_replicas": figures.desired_replicas_at(now_s),
        "present_replicas": figures.present_replicas,
        "feasible": figures.feasible,
        "age_s": figures.age_s(now_s),
        "unknown": figures.why_unknown(now_s),
        "slo": {name: _target(target) for name, target in figures.targets.items()},
    }


def _target(target: TargetFigures) -> Json:
    return {
        "target_ms": target.target_ms,
        "objective": target.objective,
        "attainment": _finite(target.attainment),
        "requests": target.requests,
        "p50_ms": _finite(target.p50_ms),
        "p99_ms": _finite(target.p99_ms),
        "burn_rates": {window: _finite(rate) for window, rate in target.burn_rates.items()},
    }


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None


def _documents(found: Iterable[Document]) -> list[Json]:
    return [_document(one) for one in found]


def _document(found: Document) -> Json:
    """As it is in the DriftService."""
    return found.model_dump(mode="json", by_alias=True, exclude_none=True)
