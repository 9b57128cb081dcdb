"""Who a token belongs to and what a user may do: asked of the cluster, as every aggregated API server does.

In: tokens of direct clients, and accesses that users want. Out: TokenReviews and SubjectAccessReviews, few at a time
and each remembered for some seconds, because an HPA asks the same question for ever.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable

from drift_operator.cluster.api import ApiError
from drift_operator.cluster.kinds import ACCESS_REVIEW, TOKEN_REVIEW
from drift_operator.doors import front_proxy
from drift_operator.doors.apiserver import ApiServer, Object
from drift_operator.doors.external_metrics import Access, Refused
from drift_operator.doors.front_proxy import User
from drift_operator.doors.remembering import Memory
from drift_operator.objects.kinds import Kind

REMEMBERED_S = 10.0
"""As other aggregated API servers: a right that is taken away ends that late."""

REMEMBERED = 1024
"""Of each kind. A cluster's HPAs are one user with as many accesses as it has services."""

AT_ONCE = 16
"""Questions under way; more wait, so that strangers with made-up tokens can't flood the API server through us."""

WAIT_S = 5.0
"""For a question's turn and answer together."""

MAX_TOKEN_CHARACTERS = 16 * 1024


class Reviews:
    """Raises Refused with 503 where the API server does not answer in time: nobody is let in on a guess."""

    def __init__(self, api: ApiServer, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._users: Memory[bytes, User | Refused] = Memory(REMEMBERED_S, REMEMBERED, clock)
        self._rights: Memory[tuple[str, Access], str] = Memory(REMEMBERED_S, REMEMBERED, clock)

    async def user(self, token: str) -> User:
        """Whose token it is. Raises Refused with 401."""
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise Refused(401, f"the token is longer than the maximum {MAX_TOKEN_CHARACTERS} characters")
        key = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        found = self._users.recall(key)
        if found is None:
            found = self._users.keep(key, await self._ask_user(token))
        if isinstance(found, Refused):
            raise Refused(found.code, str(found))
        return found

    async def authorize(self, user: User, access: Access) -> None:
        """Raises Refused with 403."""
        key = (json.dumps(user.spec(), sort_keys=True), access)
        refusal = self._rights.recall(key)
        if refusal is None:
            refusal = self._rights.keep(key, await self._ask_right(user, access))
        if refusal:
            raise Refused(403, refusal)

    async def _ask_user(self, token: str) -> User | Refused:
        status = await self._ask(TOKEN_REVIEW, {"token": token})
        found = status.get("user") or {}
        if not status.get("authenticated") or not found.get("username"):
            return Refused(401, "the cluster does not know the token")
        name = str(found["username"])
        return User(
            name,
            uid=str(found.get("uid", "")),
            groups=front_proxy.authenticated(name, tuple(found.get("groups") or ())),
            extra={key: tuple(values) for key, values in (found.get("extra") or {}).items()},
        )

    async def _ask_right(self, user: User, access: Access) -> str:
        """Empty: allowed; else why not."""
        status = await self._ask(ACCESS_REVIEW, {**user.spec(), **access.attributes()})
        if status.get("allowed") is True and not status.get("denied"):
            return ""
        reason = f": {status['reason']}" if status.get("reason") else ""
        return f"user {user.name!r} may not {access.verb} {_wanted(access)}{reason}"

    async def _ask(self, kind: Kind, spec: Object) -> Object:
        review = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {}, "spec": spec}
        try:
            async with asyncio.timeout(WAIT_S), self._turns:
                answer = await self._api.create(kind, review)
        except (ApiError, TimeoutError) as error:
            raise Refused(503, f"the cluster does not answer a {kind.kind}") from error
        status = answer.get("status")
        return status if isinstance(status, dict) else {}


def _wanted(access: Access) -> str:
    if access.resource is None:
        return access.path
    return f"{access.resource} of external metrics in namespace {access.namespace!r}"
