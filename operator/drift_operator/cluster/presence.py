"""Whether something that a user has to make is there: asked while somebody waits for it, and not read."""

from __future__ import annotations

import math

from drift_operator.cluster.api import Api
from drift_operator.objects.kinds import Kind

ASK_S = 5.0
"""A user who made it sees it noticed within this."""


class Presence:
    """Of one object, by the last answer."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._known: tuple[tuple[Kind, str, str] | None, float, bool] = (None, -math.inf, True)

    async def missing(self, kind: Kind, namespace: str, name: str, now_s: float) -> bool:
        """Raises ApiError."""
        what, asked_s, there = self._known
        if what != (kind, namespace, name) or now_s - asked_s >= ASK_S:
            there = await self._api.exists(kind, namespace, name)
            self._known = (kind, namespace, name), now_s, there
        return not there
