"""The control tokens of services: made once, kept in a Secret each, read again now and then."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Callable
from typing import Any

from drift_operator.cluster.api import Api, ApiError, ConflictError, NotFoundError
from drift_operator.objects import names
from drift_operator.objects.kinds import SECRET
from drift_operator.places import Service

READ_S = 300.0
"""Somebody may have replaced the Secret, and the operator may not watch Secrets: it would read everybody's."""


class Token:
    """Of one service."""

    def __init__(self, api: Api, service: Service) -> None:
        self._api = api
        self._service = service
        self._known: tuple[str, float] | None = None

    async def read(self, made: Callable[[str], dict[str, Any]], now_s: float) -> str:
        """`made`: the Secret around a token that is new. Raises ApiError."""
        if self._known is not None and now_s - self._known[1] < READ_S:
            return self._known[0]
        namespace, name = self._service[0], names.control_secret(self._service[1])
        try:
            found = await self._api.get(SECRET, namespace, name)
        except NotFoundError:
            try:
                found = await self._api.create(SECRET, made(secrets.token_urlsafe(32)))
            except ConflictError:
                found = await self._api.get(SECRET, namespace, name)
        try:
            token = base64.b64decode((found.get("data") or {})[names.TOKEN_KEY], validate=True).decode()
        except (KeyError, binascii.Error, UnicodeDecodeError):
            token = ""
        if not token:
            raise ApiError(
                0, "NoToken", f"Secret {name} has no key {names.TOKEN_KEY}; once deleted it is made anew"
            )
        self._known = token, now_s
        return token
