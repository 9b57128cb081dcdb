"""Kubernetes Events: what `kubectl describe drs` shows below the status. Lost ones cost nothing but a line there."""

from __future__ import annotations

import asyncio
import datetime
import logging
import secrets
from typing import Any, Literal

from drift_operator import driftservice
from drift_operator.cluster.api import Api, ApiError
from drift_operator.cluster.kinds import EVENT
from drift_operator.objects import names

log = logging.getLogger(__name__)

QUEUED = 256
"""Of all services; more are dropped: a storm of events must not slow what causes it."""

MESSAGE_BYTES = 1024
"""The API's limit."""


class Recorder:
    """Owns one task, which writes one event after the other."""

    def __init__(self, api: Api, identity: str) -> None:
        self._api = api
        self._identity = identity
        self._queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(QUEUED)
        self._task = asyncio.create_task(self._write(), name="events")

    def record(
        self, service: dict[str, Any], kind: Literal["Normal", "Warning"], reason: str, message: str
    ) -> None:
        """`service`: the DriftService's own object."""
        meta = service["metadata"]
        now = datetime.datetime.now(datetime.UTC)
        text = message.encode()[:MESSAGE_BYTES].decode(errors="ignore")
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{meta['name']}.{secrets.token_hex(8)}",
                "namespace": meta["namespace"],
            },
            "involvedObject": {
                "apiVersion": driftservice.API_VERSION,
                "kind": driftservice.KIND,
                "name": meta["name"],
                "namespace": meta["namespace"],
                "uid": meta["uid"],
            },
            "type": kind,
            "reason": reason,
            "message": text,
            "eventTime": now.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "action": reason,
            "reportingComponent": names.FIELD_MANAGER,
            "reportingInstance": self._identity,
        }
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            log.warning("an event was dropped", extra={"reason": reason, "service": meta["name"]})

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _write(self) -> None:
        while True:
            event = await self._queue.get()
            try:
                await self._api.create(EVENT, event)
            except ApiError as error:
                log.warning("an event could not be written: %s", error)
