"""The owned objects as the watches last told them: read by everybody, written by `watching`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from drift_operator.objects import names
from drift_operator.objects.kinds import Kind
from drift_operator.places import Service

Object = dict[str, Any]


def owner(item: Object) -> Service | None:
    """The service that an object belongs to, by its labels."""
    meta = item["metadata"]
    name = (meta.get("labels") or {}).get(names.INSTANCE)
    return (str(meta.get("namespace", "")), str(name)) if name else None


class Cache:
    """Objects by kind and service. `changed` hears of every service whose objects changed."""

    def __init__(self, changed: Callable[[Service], None]) -> None:
        self._changed = changed
        self._objects: dict[Kind, dict[Service, dict[str, Object]]] = {}
        self._versions: dict[Service, int] = {}

    def of(self, kind: Kind, service: Service) -> dict[str, Object]:
        """By name. Not to be changed by the reader."""
        return self._objects.get(kind, {}).get(service, {})

    def version(self, service: Service) -> int:
        """Grows with every change of the service's objects."""
        return self._versions.get(service, 0)

    def put(self, kind: Kind, item: Object) -> None:
        """An older word than what is known changes nothing."""
        service = owner(item)
        if service is None:
            return
        own = self._objects.setdefault(kind, {}).setdefault(service, {})
        name = str(item["metadata"]["name"])
        before = own.get(name)
        if before is not None and not _newer(item, before):
            return
        item["metadata"].pop("managedFields", None)
        own[name] = item
        self._tell(service)

    def drop(self, kind: Kind, item: Object) -> None:
        service = owner(item)
        of_kind = self._objects.get(kind, {})
        if service is None or service not in of_kind:
            return
        known = of_kind[service].get(str(item["metadata"]["name"]))
        if known is None or known["metadata"]["uid"] != item["metadata"]["uid"]:
            return
        del of_kind[service][str(item["metadata"]["name"])]
        if not of_kind[service]:
            del of_kind[service]
        self._tell(service)

    def replace(self, kind: Kind, namespace: str | None, items: Iterable[Object]) -> None:
        """All there are in the namespace (None: anywhere), after a list: what is not among them is gone."""
        listed = list(items)
        present = {str(item["metadata"]["uid"]) for item in listed}
        for item in list(self._all(kind, namespace)):
            if item["metadata"]["uid"] not in present:
                self.drop(kind, item)
        for item in listed:
            self.put(kind, item)

    def _tell(self, service: Service) -> None:
        self._versions[service] = self._versions.get(service, 0) + 1
        self._changed(service)

    def _all(self, kind: Kind, namespace: str | None) -> Iterator[Object]:
        for service, own in self._objects.get(kind, {}).items():
            if namespace is None or service[0] == namespace:
                yield from own.values()


def _newer(item: Object, known: Object) -> bool:
    """Of one object. Versions are comparable numbers (KEP-5504, in every API server on etcd); other objects win."""
    new, old = item["metadata"], known["metadata"]
    if new["uid"] != old["uid"]:
        return bool(new.get("creationTimestamp", "") >= old.get("creationTimestamp", ""))
    return int(new["resourceVersion"]) > int(old["resourceVersion"])
