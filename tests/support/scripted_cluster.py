"""The cluster's API server as the operator's doors see it, with everything that it says written down beforehand."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from drift_operator.cluster import kinds
from drift_operator.cluster.api import ApiError, ConflictError, NotFoundError
from drift_operator.cluster.kinds import ACCESS_REVIEW, TOKEN_REVIEW
from drift_operator.doors.front_proxy import CONFIG_MAP
from drift_operator.objects.kinds import Kind

Object = dict[str, Any]


class ScriptedCluster:
    """Objects by kind and name, users by token, and who may what. `asked` counts reviews, `written` objects."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Object] = {}
        self.front_proxy: Mapping[str, str] = {}
        self.tokens: dict[str, Object] = {}
        self.allowed: set[str] = set()
        """Users that may do everything."""
        self.reviews: list[Object] = []
        self.written: list[str] = []
        self.down = False
        self._version = 0

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object:
        self._answer()
        if (kind.kind, name) not in self.objects:
            raise NotFoundError(404, "NotFound", f"{kind.plural} {name} not found")
        return copy.deepcopy(self.objects[kind.kind, name])

    async def get_path(self, path: str) -> Object:
        self._answer()
        assert path == CONFIG_MAP, path
        return {"data": dict(self.front_proxy)}

    async def create(self, kind: Kind, manifest: Object) -> Object:
        self._answer()
        if kind in (TOKEN_REVIEW, ACCESS_REVIEW):
            self.reviews.append(manifest)
            return {"status": self._judged(kind, manifest["spec"])}
        name = manifest["metadata"]["name"]
        if (kind.kind, name) in self.objects:
            raise ConflictError(409, "AlreadyExists", f"{kind.plural} {name} already exists")
        return self._put(kind, manifest)

    async def apply(self, manifest: Object, *, force: bool = True) -> Object:
        self._answer()
        kind, meta = kinds.of(manifest), manifest["metadata"]
        found = self.objects.get((kind.kind, meta["name"]))
        if found is not None:
            version = meta.get("resourceVersion", found["metadata"]["resourceVersion"])
            if not force or version != found["metadata"]["resourceVersion"]:
                raise ConflictError(409, "Conflict", f"{kind.plural} {meta['name']} has changed")
        return self._put(kind, manifest)

    def _put(self, kind: Kind, manifest: Object) -> Object:
        self._version += 1
        made: Object = json.loads(json.dumps(manifest))
        made["metadata"]["resourceVersion"] = str(self._version)
        self.objects[kind.kind, made["metadata"]["name"]] = made
        self.written.append(kind.kind)
        return copy.deepcopy(made)

    def _judged(self, kind: Kind, spec: Object) -> Object:
        if kind is TOKEN_REVIEW:
            user = self.tokens.get(spec["token"])
            return {"authenticated": user is not None, "user": user or {}}
        return {"allowed": spec["user"] in self.allowed}

    def _answer(self) -> None:
        if self.down:
            raise ApiError(0, "ClientConnectorError", "connection refused")
