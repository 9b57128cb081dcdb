"""What /metrics says: how the operator works, and how its services do.

In: the reconciler's and the channel's calls, and the figures at the moment of a scrape. Out: the Prometheus text.
Figures are read when they are asked for, so a service that is deleted is gone from the text; its counters go when
it is forgotten. Every other label has a handful of values that the code names.
"""

from __future__ import annotations

import enum
import math
import time
from collections.abc import Callable, Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from drift_operator.doors.figures import Figures, ServiceFigures

disable_created_metrics()  # type: ignore[no-untyped-call]  # a gauge per counter that nobody reads

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_RECONCILE_EDGES_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""From a pass that writes nothing to one that an API server's deadline ends."""

_PUSH_EDGES_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
"""Up to the push channel's deadline."""


_SERVICE = ("namespace", "service")


class Outcome(enum.StrEnum):
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    FAILED = "failed"


class Metrics:
    """One operator's numbers. `clock` is the one that figures are dated by."""

    def __init__(
        self, figures: Figures, cluster_name: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._reconciles = self._counter(
            "drift_operator_reconcile", "Passes over a service, by what came of them.", *_SERVICE, "outcome"
        )
        self._errors = self._counter(
            "drift_operator_reconcile_errors", "Passes over a service that failed.", *_SERVICE
        )
        self._reconcile_s = self._histogram(
            "drift_operator_reconcile_duration_seconds", "Of one pass over a service.", _RECONCILE_EDGES_S
        )
        self._decisions = self._counter(
            "drift_operator_decisions", "What the levers decided, and why.", *_SERVICE, "lever", "reason"
        )
        self._pushes = self._counter("drift_operator_push", "Set-points that were sent to nodes.")
        self._push_failures = self._counter(
            "drift_operator_push_failures", "Set-points that a node did not acknowledge."
        )
        self._push_s = self._histogram(
            "drift_operator_push_duration_seconds", "From a set-point to its acknowledgement.", _PUSH_EDGES_S
        )
        self._watch_restarts = self._counter(
            "drift_operator_watch_restarts", "Watches that ended and were begun again.", "resource"
        )
        info = Gauge(
            "drift_operator_info", "1, and where this operator runs.", ["cluster"], registry=self._registry
        )
        info.labels(cluster_name).set(1)
        self._registry.register(_Services(figures, clock))

    def reconciled(self, service: tuple[str, str], duration_s: float, outcome: Outcome) -> None:
        """One pass over one service, given as namespace and name, is over."""
        for each in Outcome:  # a rate needs the zero before the first
            self._reconciles.labels(*service, each).inc(each is outcome)
        self._errors.labels(*service).inc(outcome is Outcome.FAILED)
        self._reconcile_s.observe(duration_s)

    def decided(self, service: tuple[str, str], lever: str, reason: str) -> None:
        """`reason` is the decision's one word; sentences would be a new label value each."""
        assert reason.isidentifier(), reason
        self._decisions.labels(*service, lever, reason).inc()

    def forget(self, service: tuple[str, str]) -> None:
        """It is gone."""
        for counter in (self._reconciles, self._errors, self._decisions):
            counter.remove_by_labels(dict(zip(_SERVICE, service, strict=True)))

    def pushed(self, duration_s: float, *, acknowledged: bool) -> None:
        """One set-point to one node."""
        self._pushes.inc()
        self._push_s.observe(duration_s)
        if not acknowledged:
            self._push_failures.inc()

    def watch_restarted(self, resource: str, times: int = 1) -> None:
        """`resource`: in the plural. 0 times when a watch begins: a rate needs the zero before the first."""
        self._watch_restarts.labels(resource).inc(times)

    def render(self) -> bytes:
        return generate_latest(self._registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str, edges: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, registry=self._registry, buckets=edges)


class _Services(Collector):
    """Numbers that are unknown are absent."""

    def __init__(self, figures: Figures, clock: Callable[[], float]) -> None:
        self._figures = figures
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        now_s = self._clock()
        services = sorted(self._figures.all(), key=lambda figures: (figures.namespace, figures.name))
        gauges: dict[str, tuple[str, Callable[[ServiceFigures], float | None]]] = {
            "drift_slo_pressure": (
                "Demand over supply; 1 is all that the nodes can do within the promise.",
                lambda figures: figures.pressure_at(now_s),
            ),
            "drift_desired_replicas": (
                "Nodes that the operator wants.",
                lambda figures: figures.desired_replicas_at(now_s),
            ),
            "drift_present_replicas": (
                "Nodes that serve, without those that drain.",
                lambda figures: figures.present_replicas,
            ),
            "drift_slo_feasible": (
                "0: one request alone on an empty node misses its target.",
                lambda figures: None if figures.feasible is None else int(figures.feasible),
            ),
            "drift_operator_metrics_age_seconds": (
                "Since the service's nodes and routers last said how they do.",
                lambda figures: figures.age_s(now_s),
            ),
        }
        for name, (text, value) in gauges.items():
            family = GaugeMetricFamily(name, text, labels=["namespace", "service"])
            for figures in services:
                _add(family, [figures.namespace, figures.name], value(figures))
            yield family
        yield from _promises(services)


def _promises(services: list[ServiceFigures]) -> Iterator[Metric]:
    labels = ["namespace", "service", "slo"]
    target_s = GaugeMetricFamily("drift_slo_target_seconds", "What is promised.", labels=labels)
    objective = GaugeMetricFamily(
        "drift_slo_objective_ratio", "Share of requests that it is promised for.", labels=labels
    )
    attainment = GaugeMetricFamily(
        "drift_slo_attainment_ratio", "Share of requests that met the target.", labels=labels
    )
    burn = GaugeMetricFamily(
        "drift_slo_burn_rate",
        "How fast the allowance of missed targets is used up; 1 uses it up exactly.",
        labels=[*labels, "window"],
    )
    for figures in services:
        for slo, target in figures.targets.items():
            values = [figures.namespace, figures.name, slo]
            _add(target_s, values, target.target_ms / 1000)
            _add(objective, values, target.objective)
            _add(attainment, values, target.attainment)
            for window, rate in target.burn_rates.items():
                _add(burn, [*values, window], rate)
    yield from (target_s, objective, attainment, burn)


def _add(family: GaugeMetricFamily, labels: list[str], value: float | None) -> None:
    if value is not None and math.isfinite(value):
        family.add_metric(labels, value)
