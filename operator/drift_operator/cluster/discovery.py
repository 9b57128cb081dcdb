"""Which optional kinds a cluster has: asked of the API server, never assumed."""

from __future__ import annotations

from drift_operator.cluster.api import Api, NotFoundError
from drift_operator.objects.kinds import OPTIONAL, Kind


async def optional_kinds(api: Api) -> frozenset[Kind]:
    """Raises ApiError where it can't be told: what is there now must not be taken for gone."""
    served: dict[str, set[str]] = {}
    for version in {kind.api_version for kind in OPTIONAL}:
        try:
            document = await api.get_path(f"/apis/{version}")
        except NotFoundError:
            served[version] = set()
        else:
            served[version] = {str(item["name"]) for item in document.get("resources", ())}
    return frozenset(kind for kind in OPTIONAL if kind.plural in served[kind.api_version])
