"""The last quarter of an hour of every service, for the pictures: series of equal steps, bounded. In memory only.

What was not known at a step is NaN there, and nothing is drawn: a gap is not a zero.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping

from drift_engine import wire
from drift_operator.console import activities
from drift_operator.console.activities import Lanes
from drift_operator.console.seen import Heard, ServiceSeen
from drift_operator.levers.attainment import FAST_S
from drift_operator.levers.observations import STALE_S

STEP_S = 5.0
POINTS = 180
"""Fifteen minutes: what a person who was just called wants to see. With four nodes some 17 KB a service."""

MOST_NODES = 64
"""Of a service, gone ones among them: as many as a status shows."""

UNKNOWN = math.nan

SERVICE = ("requests_per_s", "ttft_attainment", "tbt_attainment", "pressure")
NODE = ("decode_sms", "prefill_sms", "kv_use", "busy", "decode_bubble", "prefill_bubble")

Series = dict[str, list[float | None]]


class Trails:
    """Is told what is known now and then; keeps the first word of every step."""

    def __init__(self, step_s: float = STEP_S, points: int = POINTS) -> None:
        self.step_s = step_s
        self.points = points
        self._step: int | None = None
        self._services: dict[tuple[str, str], _Trail] = {}
        self._nodes: dict[tuple[str, str], dict[str, _NodeTrail]] = {}

    def add(self, services: Iterable[ServiceSeen], now_s: float) -> None:
        """Services that are gone are forgotten at once; nodes once nothing of them would be drawn."""
        step = math.floor(now_s / self.step_s)
        if self._step is not None and step <= self._step:
            return
        skipped = 0 if self._step is None else min(step - self._step - 1, self.points)
        self._step = step
        present = {service.key: service for service in services}
        for trails in (self._services, self._nodes):
            for key in trails.keys() - present.keys():
                del trails[key]
        for key, service in present.items():
            trail = self._services.setdefault(key, _Trail(SERVICE, self.points))
            trail.skip(skipped)
            trail.add(_of_service(service, now_s))
            self._add_nodes(self._nodes.setdefault(key, {}), service.nodes, skipped, now_s)

    def service(self, key: tuple[str, str]) -> Series:
        """Oldest first, `points` of each; None: not known."""
        return (self._services.get(key) or _Trail(SERVICE, self.points)).read()

    def nodes(self, key: tuple[str, str]) -> dict[str, Series]:
        """By name, also of nodes that are gone."""
        return {name: node.trail.read() for name, node in sorted(self._nodes.get(key, {}).items())}

    def lanes(self, key: tuple[str, str], node: str) -> Lanes | None:
        """Between the last two reports that were kept."""
        found = self._nodes.get(key, {}).get(node)
        return found.lanes if found is not None else None

    def _add_nodes(
        self,
        trails: dict[str, _NodeTrail],
        nodes: Mapping[str, Heard[wire.Report]],
        skipped: int,
        now_s: float,
    ) -> None:
        for name in nodes:
            if name not in trails:
                trails[name] = _NodeTrail(self.points)
        for name, node in trails.items():
            node.trail.skip(skipped)
            node.add(nodes.get(name), now_s)
        over = len(trails) - MOST_NODES
        oldest = sorted(trails, key=lambda name: (name in nodes, -trails[name].trail.silent))
        for place, name in enumerate(oldest):
            if place < over or trails[name].trail.silent >= self.points:
                del trails[name]


class _Trail:
    """Series that go together."""

    def __init__(self, names: Iterable[str], points: int) -> None:
        self.silent = 0
        """Steps since anything was known."""
        self._points = points
        self._series = {name: array("f") for name in names}

    def skip(self, steps: int) -> None:
        for _ in range(steps):
            self.add({})

    def add(self, known: Mapping[str, float | None]) -> None:
        self.silent = 0 if any(value is not None for value in known.values()) else self.silent + 1
        for name, values in self._series.items():
            value = known.get(name)
            values.append(UNKNOWN if value is None else value)
            if len(values) > self._points:
                del values[0]

    def read(self) -> Series:
        found: Series = {}
        for name, values in self._series.items():
            found[name] = [None] * (self._points - len(values))
            found[name] += [float(f"{value:.4g}") if math.isfinite(value) else None for value in values]
        return found


class _NodeTrail:
    def __init__(self, points: int) -> None:
        self.lanes: Lanes | None = None
        self.trail = _Trail(NODE, points)
        self._last: wire.Report | None = None

    def add(self, heard: Heard[wire.Report] | None, now_s: float) -> None:
        report = heard.report if heard is not None and now_s - heard.at_s <= STALE_S else None
        if report is None:
            self.lanes = self._last = None
            self.trail.add({})
            return
        if self._last is None or report.uptime_s != self._last.uptime_s:  # else no pass came between
            self.lanes = activities.between(self._last, report) if self._last is not None else None
            self._last = report
        split, lanes = report.split, self.lanes
        self.trail.add(
            {
                "decode_sms": split.decode_sms if split is not None else None,
                "prefill_sms": split.prefill_sms if split is not None else None,
                "kv_use": report.kv_usage,
                "busy": lanes.busy if lanes is not None else None,
                "decode_bubble": lanes.decode_bubble if lanes is not None else None,
                "prefill_bubble": lanes.prefill_bubble if lanes is not None else None,
            }
        )


def _of_service(service: ServiceSeen, now_s: float) -> dict[str, float | None]:
    figures, minute = service.figures, service.minute
    if figures.why_unknown(now_s) is not None:
        return {}
    return {
        "requests_per_s": minute.requests / FAST_S,
        "ttft_attainment": minute.ttft.attainment,
        "tbt_attainment": minute.tbt.attainment,
        "pressure": figures.pressure_at(now_s),
    }
