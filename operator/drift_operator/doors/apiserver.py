"""The cluster's API server as the doors need it: `drift_operator.cluster.api.Api`, or a test's own."""

from __future__ import annotations

from typing import Any, Protocol

from drift_operator.objects.kinds import Kind

Object = dict[str, Any]


class ApiServer(Protocol):
    """All raise `drift_operator.cluster.api.ApiError`."""

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object: ...

    async def get_path(self, path: str) -> Object: ...

    async def create(self, kind: Kind, manifest: Object) -> Object: ...

    async def apply(self, manifest: Object, *, force: bool = True) -> Object: ...
