"""Makes owned objects what they should be, and writes nothing where they are so already.

What was applied is remembered with the version that came of it. An object is applied again when what is wanted
changed, when somebody else changed it in a way that matters or deleted it, and once in a while in any case: a change
that no watch told of ends then.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from drift_operator.cluster import kinds
from drift_operator.cluster.api import Api, ApiError, ConflictError
from drift_operator.cluster.caches import Cache
from drift_operator.objects.kinds import Kind
from drift_operator.places import Service

Object = dict[str, Any]
Key = tuple[Kind, str]

REPAIR_S = 600.0
"""Objects are applied anew at least so often."""


@dataclass(frozen=True, slots=True)
class _Applied:
    digest: bytes
    uid: str
    version: str
    at_s: float


class Applier:
    """Of one service."""

    def __init__(self, api: Api, cache: Cache, service: Service) -> None:
        self._api = api
        self._cache = cache
        self._service = service
        self._applied: dict[Key, _Applied] = {}
        self.wrote = False
        """By the last `apply`: an object is another one now."""

    async def apply(self, manifests: Iterable[Object], now_s: float) -> list[ApiError]:
        """In their order. What could not be applied does not keep the others from it."""
        errors: list[ApiError] = []
        self.wrote = False
        for manifest in manifests:
            try:
                await self._apply(manifest, now_s)
            except ApiError as error:
                kind, name = manifest["kind"], manifest["metadata"]["name"]
                errors.append(type(error)(error.status, f"{kind} {name}", str(error), error.retry_after_s))
                if error.status in (0, 429, 503):  # the API server has trouble: not now
                    break
        return errors

    async def prune(self, wanted: Iterable[Object], among: Iterable[Kind]) -> list[ApiError]:
        """Deletes what the service owns of these kinds and wants no more."""
        keep = {(kinds.of(manifest), str(manifest["metadata"]["name"])) for manifest in wanted}
        errors: list[ApiError] = []
        for kind in among:
            for name, item in list(self._cache.of(kind, self._service).items()):
                meta = item["metadata"]
                if (kind, name) in keep or meta.get("deletionTimestamp") or not _ours(item):
                    continue
                try:
                    await self._api.delete(kind, self._service[0], name, meta["uid"])
                except ConflictError:
                    continue  # another object of the same name by now
                except ApiError as error:
                    errors.append(error)
                self._applied.pop((kind, name), None)
        return errors

    async def _apply(self, manifest: Object, now_s: float) -> None:
        kind, name = kinds.of(manifest), str(manifest["metadata"]["name"])
        digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).digest()
        live = self._cache.of(kind, self._service).get(name)
        known = self._applied.get((kind, name))
        fresh = known is not None and known.digest == digest and now_s - known.at_s < REPAIR_S
        if fresh and known is not None and live is not None and live["metadata"]["uid"] == known.uid:
            version = str(live["metadata"]["resourceVersion"])
            if int(version) <= int(known.version):
                return
            if contains(live, manifest):
                self._applied[kind, name] = _Applied(digest, known.uid, version, known.at_s)
                return
        made = await self._api.apply(manifest)
        meta = made["metadata"]
        self.wrote = (
            self.wrote or live is None or meta["resourceVersion"] != live["metadata"]["resourceVersion"]
        )
        self._applied[kind, name] = _Applied(digest, str(meta["uid"]), str(meta["resourceVersion"]), now_s)
        self._cache.put(kind, made)


def contains(live: Any, wanted: Any) -> bool:
    """Everything that is wanted is there; what the API server or others added does not matter.

    Lists must have the same items in the same order where they hold plain values; of objects in a list each wanted
    one must be contained in one that is there. A quantity that the API server spells anew counts as changed: that
    costs an apply, which then changes nothing.
    """
    if isinstance(wanted, dict):
        return isinstance(live, dict) and all(
            key in live and contains(live[key], value) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        if not isinstance(live, list):
            return False
        if all(isinstance(item, dict) for item in wanted):
            return all(any(contains(there, item) for there in live) for item in wanted)
        return bool(live == wanted)
    return bool(live == wanted)


def _ours(item: Object) -> bool:
    """Owned by a DriftService as its controller: what merely has our labels is somebody else's."""
    references = item["metadata"].get("ownerReferences") or ()
    kind = kinds.DRIFT_SERVICE
    return any(
        ref.get("controller") and ref["kind"] == kind.kind and ref["apiVersion"] == kind.api_version
        for ref in references
    )
