"""An API server in memory: objects, versions, owners of fields, watches. Nothing of it takes time or goes wrong; how
it does for an operator says `faulty_api`.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import datetime
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import field_owners
from drift_operator.cluster import kinds
from drift_operator.cluster.api import ConflictError, NotFoundError
from drift_operator.objects import names
from drift_operator.objects.kinds import Kind
from field_owners import Owners

Object = dict[str, Any]
Place = tuple[Kind, str, str]
"""Kind, namespace, name."""

BEGUN = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
"""When the loop's clock was 0."""


class News(NamedTuple):
    version: int
    at_s: float
    type: str
    kind: Kind
    object: Object


class ModelApi:
    """`now_s` is the loop's clock. What it gives away is a copy."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self.version = 1
        self.news: list[News] = []
        """Of all kinds, oldest first."""
        self.told = asyncio.Event()
        """Of the next news; then another one takes its place."""
        self.deleting: Callable[[Object], None] = lambda pod: None
        """Hears of pods that the operator deletes."""
        self._now_s = now_s
        self._objects: dict[Place, Object] = {}
        self._owners: dict[Place, Owners] = {}
        self._uids = itertools.count(1)

    # reading

    def find(self, kind: Kind, namespace: str, name: str) -> Object | None:
        return copy.deepcopy(self._objects.get((kind, namespace, name)))

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        return copy.deepcopy(self._there(kind, namespace, name))

    def all(self, kind: Kind | None = None) -> Iterator[tuple[Place, Object]]:
        """Not to be changed by the reader."""
        for place, item in list(self._objects.items()):
            if kind is None or place[0] == kind:
                yield place, item

    def list(self, kind: Kind, selector: str = "") -> tuple[list[Object], str]:
        found = [copy.deepcopy(item) for _, item in self.all(kind) if chosen(item, selector)]
        return found, str(self.version)

    def since(self, version: int) -> Iterator[News]:
        return itertools.islice(self.news, max(0, version - 1), None)  # the first news made version 2

    # writing

    def create(self, kind: Kind, manifest: Object, manager: str = names.FIELD_MANAGER) -> Object:
        meta = manifest["metadata"]
        place = kind, meta["namespace"], meta["name"]
        if place in self._objects:
            raise ConflictError(409, "AlreadyExists", f"{kind.plural} {meta['name']} already exists")
        made, self._owners[place] = field_owners.merged({}, manifest, {}, manager)
        return self._put(place, made)

    def apply(self, manifest: Object, *, status: bool = False) -> Object:
        kind, meta = kinds.of(manifest), manifest["metadata"]
        place = kind, meta["namespace"], meta["name"]
        live = self._objects.get(place)
        if live is None and (status or "uid" in meta):
            raise NotFoundError(404, "NotFound", f"{kind.plural} {meta['name']} not found")
        if live is not None and meta.get("uid", live["metadata"]["uid"]) != live["metadata"]["uid"]:
            raise ConflictError(409, "Conflict", f"the uid of {kind.plural} {meta['name']} is another one")
        manager = names.FIELD_MANAGER + ("/status" if status else "")
        wanted = {"status": manifest["status"]} if status else manifest
        made, owners = field_owners.applied(live or {}, wanted, self._owners.get(place, {}), manager)
        self._owners[place] = owners
        return self._put(place, made)

    def merge(
        self, kind: Kind, namespace: str, name: str, patch: Object, manager: str = names.FIELD_MANAGER
    ) -> Object:
        live, place = self._there(kind, namespace, name), (kind, namespace, name)
        made, self._owners[place] = field_owners.merged(live, patch, self._owners[place], manager)
        return self._put(place, made)

    def delete(
        self, kind: Kind, namespace: str, name: str, uid: str | None = None, manager: str = "user"
    ) -> None:
        """A pod is only told to go, others are gone; what belongs to them goes by `collect`."""
        live = self._there(kind, namespace, name)
        if uid not in (None, live["metadata"]["uid"]):
            raise ConflictError(409, "Conflict", f"the uid of {kind.plural} {name} is another one")
        if kind != kinds.POD:
            self.remove((kind, namespace, name))
        elif "deletionTimestamp" not in live["metadata"]:
            if manager == names.FIELD_MANAGER:
                self.deleting(live)
            self.merge(kind, namespace, name, {"metadata": {"deletionTimestamp": self.timestamp}})

    def remove(self, place: Place) -> None:
        gone = self._objects.pop(place)
        del self._owners[place]
        self._tell("DELETED", place, gone)

    def collect(self) -> None:
        """Garbage: what all owners of are gone."""
        uids = {item["metadata"]["uid"] for item in self._objects.values()}
        for place, item in list(self._objects.items()):
            owners = item["metadata"].get("ownerReferences")
            if owners and not any(owner["uid"] in uids for owner in owners):
                self.remove(place)

    def owns(self, place: Place, manager: str, path: field_owners.Path) -> bool:
        return path in self._owners[place].get(manager, set())

    @property
    def timestamp(self) -> str:
        return (BEGUN + datetime.timedelta(seconds=self._now_s())).strftime("%Y-%m-%dT%H:%M:%SZ")

    def _there(self, kind: Kind, namespace: str, name: str) -> Object:
        if (found := self._objects.get((kind, namespace, name))) is None:
            raise NotFoundError(404, "NotFound", f"{kind.plural} {name} not found")
        return found

    def _put(self, place: Place, made: Object) -> Object:
        """What changes nothing has no version of its own."""
        live = self._objects.get(place)
        made = copy.deepcopy(made)
        meta = made["metadata"]
        for key, text in made.pop("stringData", {}).items():
            made.setdefault("data", {})[key] = base64.b64encode(text.encode()).decode()
        if live is None:
            meta |= {"uid": f"uid-{next(self._uids)}", "creationTimestamp": self.timestamp}
            if "spec" in made:
                meta["generation"] = 1
        elif made == live:
            return copy.deepcopy(live)
        elif made.get("spec") != live.get("spec"):
            meta["generation"] = live["metadata"]["generation"] + 1
        self._objects[place] = made
        self._tell("ADDED" if live is None else "MODIFIED", place, made)
        return copy.deepcopy(made)

    def _tell(self, event: str, place: Place, item: Object) -> None:
        self.version += 1
        item["metadata"]["resourceVersion"] = str(self.version)
        self.news.append(News(self.version, self._now_s(), event, place[0], copy.deepcopy(item)))
        told, self.told = self.told, asyncio.Event()
        told.set()


def chosen(item: Object, selector: str) -> bool:
    """By one label, KEY=VALUE; empty: always."""
    key, _, value = selector.partition("=")
    return not key or (item["metadata"].get("labels") or {}).get(key) == value
