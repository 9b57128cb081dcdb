"""The operator's memory as its doors see it, filled by hand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from drift_operator.doors.figures import ServiceFigures


class KeptFigures:
    def __init__(self, *services: ServiceFigures) -> None:
        self._services = {(service.namespace, service.name): service for service in services}

    def lookup(self, namespace: str, name: str) -> ServiceFigures | None:
        return self._services.get((namespace, name))

    def all(self) -> Iterable[ServiceFigures]:
        return list(self._services.values())

    def change(self, namespace: str, name: str, **changes: Any) -> None:
        """Some fields of one service, which is new where it is unknown."""
        before = self._services.get((namespace, name), ServiceFigures(namespace, name))
        self._services[namespace, name] = replace(before, **changes)

    def forget(self, namespace: str, name: str) -> None:
        del self._services[namespace, name]
