"""The gate before everything else: of several operators one acts, the one that holds the Lease.

As Kubernetes' own controllers do it: who holds it renews it; who does not watches it stand still, by a clock of his
own, for as long as it says it holds. Times in the Lease are for people: clocks differ. The official client's election
(kubernetes 37.0) fails on its own types and lets a call hang for minutes.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from drift_operator.cluster.api import Api, ApiError, ConflictError, NotFoundError
from drift_operator.cluster.kinds import LEASE

log = logging.getLogger(__name__)

Object = dict[str, Any]

DURATION_S, DEADLINE_S, RETRY_S = 15, 10, 2
"""As Kubernetes' own controllers: who could not renew for 10 s stops 5 s before another may begin."""


class Lease:
    """One candidate for one Lease."""

    def __init__(self, api: Api, namespace: str, name: str, identity: str) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._seen: tuple[str, float] = ("", 0.0)
        """The Lease's version, and since when it has it."""

    async def lead(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Waits for the Lease and works. False: the Lease was lost, and the work was cancelled; True: it ended."""
        while not await self._tried():  # noqa: ASYNC110 - the API server tells nobody
            await asyncio.sleep(RETRY_S)
        working = asyncio.ensure_future(work())
        renewing = asyncio.create_task(self._renew(), name="lease")
        try:
            await asyncio.wait({working, renewing}, return_when=asyncio.FIRST_COMPLETED)
            if not (ended := working.done()):
                log.warning("the lease was lost", extra={"lease": f"{self._namespace}/{self._name}"})
        finally:
            working.cancel()
            renewing.cancel()
            (outcome, _) = await asyncio.gather(working, renewing, return_exceptions=True)
            await self._release()
        if isinstance(outcome, Exception):
            raise outcome
        return ended

    async def _renew(self) -> None:
        """Returns when the Lease could not be renewed in time."""
        loop = asyncio.get_running_loop()
        renewed_s = loop.time()
        while loop.time() - renewed_s < DEADLINE_S:
            await asyncio.sleep(RETRY_S)
            start_s = loop.time()
            if await self._tried():
                renewed_s = start_s

    async def _tried(self) -> bool:
        try:
            async with asyncio.timeout(DEADLINE_S / 2):
                return await self._claim()
        except ConflictError:
            return False  # another was quicker
        except (TimeoutError, ApiError) as error:
            log.warning("lease: %s", str(error) or "no answer in time")
            return False

    async def _claim(self) -> bool:
        """Whether the Lease is ours now."""
        now_s, now = asyncio.get_running_loop().time(), _timestamp()
        ours: Object = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": DURATION_S,
            "renewTime": now,
        }
        meta = {"name": self._name, "namespace": self._namespace}
        try:
            found = await self._api.get(LEASE, self._namespace, self._name)
        except NotFoundError:
            fresh = {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": meta}
            await self._api.create(
                LEASE, fresh | {"spec": ours | {"acquireTime": now, "leaseTransitions": 0}}
            )
            return True
        spec, version = found.get("spec") or {}, str(found["metadata"]["resourceVersion"])
        holder = spec.get("holderIdentity")
        if version != self._seen[0]:
            self._seen = version, now_s
        if holder and holder != self._identity:
            if now_s - self._seen[1] < float(spec.get("leaseDurationSeconds") or DURATION_S):
                return False
            log.info("taking over the lease", extra={"holder": holder})
        if holder != self._identity:
            ours |= {"acquireTime": now, "leaseTransitions": int(spec.get("leaseTransitions") or 0) + 1}
        # With its version: of two who claim it at once one meets a conflict.
        patch = {"metadata": {"resourceVersion": version}, "spec": ours}
        await self._api.merge(LEASE, self._namespace, self._name, patch)
        return True

    async def _release(self) -> None:
        """So that the next one need not wait until it has run out; one that can't be told will wait."""
        try:
            async with asyncio.timeout(RETRY_S):
                found = await self._api.get(LEASE, self._namespace, self._name)
                if (found.get("spec") or {}).get("holderIdentity") == self._identity:
                    free = {"resourceVersion": found["metadata"]["resourceVersion"]}
                    patch = {"metadata": free, "spec": {"holderIdentity": None}}
                    await self._api.merge(LEASE, self._namespace, self._name, patch)
        except (TimeoutError, ApiError):
            log.warning("the lease could not be released; it runs out by itself")


def _timestamp() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
