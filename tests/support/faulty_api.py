"""The way of one operator to an API server in memory, on which whatever can go wrong does: calls are refused or
unanswered, before or after they took effect, watches are late, cut, silent or told that they are too old, and the
operator itself may end at any call.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import enum
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from drift_operator.cluster.api import ApiError, ConflictError, ExpiredError, NotFoundError
from drift_operator.objects import names
from drift_operator.objects.kinds import Kind
from model_api import ModelApi, Object, chosen

Result = TypeVar("Result")

BOOKMARK_S = 50.0
"""A watch's sign of life."""


class Fault(enum.Enum):
    """Of one call."""

    CONFLICT = "409"
    THROTTLED = "429"
    ERROR = "500"
    UNANSWERED = "no answer; nothing was done"
    LOST = "no answer; it was done"
    KILLED_BEFORE = "the operator ends before the call"
    KILLED_AFTER = "the operator ends after the call"


class Mishap(enum.Enum):
    """Of all open watches."""

    CUT = "cut"
    ENDED = "ended"
    EXPIRED = "410"
    DEAF = "silent for ever"


class Way:
    """What an operator's calls meet. Faults are by the number of the call, counted over all operators."""

    def __init__(self, faults: dict[int, Fault]) -> None:
        self.lag_s = 0.0
        """Of watches: events come so late."""
        self.slow_s = 0.0
        """What a call takes."""
        self.calls = 0
        self._faults = faults
        self._mishaps: list[Mishap] = []
        self._happened = asyncio.Event()

    def fault(self) -> Fault | None:
        self.calls += 1
        return self._faults.get(self.calls)

    def mend(self) -> None:
        """From now on nothing goes wrong."""
        self._faults, self.lag_s, self.slow_s = {}, 0.0, 0.0

    def strike(self, mishap: Mishap) -> None:
        self._mishaps.append(mishap)
        happened, self._happened = self._happened, asyncio.Event()
        happened.set()

    @property
    def struck(self) -> int:
        return len(self._mishaps)

    def mishap(self, since: int) -> Mishap | None:
        """Of a watch that was opened after so many."""
        return self._mishaps[since] if len(self._mishaps) > since else None

    async def hear(self, told: asyncio.Event, within_s: float) -> None:
        """Returns when something was told, or struck, and in time."""
        waits = [asyncio.ensure_future(event.wait()) for event in (told, self._happened)]
        try:
            await asyncio.wait(waits, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()


class FaultyApi:
    """Stands where `drift_operator.cluster.api.Api` does."""

    def __init__(self, model: ModelApi, way: Way, kill: Callable[[], None]) -> None:
        self._model = model
        self._way = way
        self._kill = kill
        self._dead = False

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object:
        return await self._call(lambda: self._model.get(kind, namespace or "", name), reads=True)

    async def exists(self, kind: Kind, namespace: str | None, name: str) -> bool:
        def look() -> bool:
            return self._model.find(kind, namespace or "", name) is not None

        return await self._call(look, reads=True)

    async def list(
        self, kind: Kind, namespace: str | None = None, selector: str = ""
    ) -> tuple[list[Object], str]:
        return await self._call(lambda: self._model.list(kind, selector), reads=True)

    async def apply(self, manifest: Object, *, force: bool = True) -> Object:
        assert force
        return await self._call(lambda: self._model.apply(manifest))

    async def apply_status(self, kind: Kind, manifest: Object) -> Object:
        return await self._call(lambda: self._model.apply(manifest, status=True))

    async def merge(self, kind: Kind, namespace: str, name: str, patch: Object) -> Object:
        return await self._call(lambda: self._model.merge(kind, namespace, name, patch))

    async def create(self, kind: Kind, manifest: Object) -> Object:
        return await self._call(lambda: self._model.create(kind, manifest))

    async def delete(self, kind: Kind, namespace: str | None, name: str, uid: str | None = None) -> None:
        with contextlib.suppress(NotFoundError):
            await self._call(
                lambda: self._model.delete(kind, namespace or "", name, uid, names.FIELD_MANAGER)
            )

    @contextlib.asynccontextmanager
    async def watch(
        self, kind: Kind, namespace: str | None, selector: str, version: str, server_s: float
    ) -> AsyncIterator[AsyncIterator[Object]]:
        yield self._events(kind, selector, int(version), asyncio.get_running_loop().time() + server_s)

    async def _events(self, kind: Kind, selector: str, version: int, until_s: float) -> AsyncIterator[Object]:
        model, way, loop, opened = self._model, self._way, asyncio.get_running_loop(), self._way.struck
        bookmark_s = loop.time() + BOOKMARK_S
        while loop.time() < until_s:
            told, wait_s = model.told, max(0.0, bookmark_s - loop.time())
            for each in model.since(version):
                if (early_s := each.at_s + way.lag_s - loop.time()) > 0:
                    wait_s = min(wait_s, early_s)
                    break
                if way.mishap(opened) is not None:
                    break
                version = each.version
                if each.kind == kind and chosen(each.object, selector):
                    yield {"type": each.type, "object": copy.deepcopy(each.object)}
            match way.mishap(opened):
                case Mishap.CUT:
                    raise ApiError(0, "ClientPayloadError", "the connection was cut")
                case Mishap.ENDED:
                    return
                case Mishap.EXPIRED:
                    raise ExpiredError(410, "Expired", "too old resource version")
                case Mishap.DEAF:
                    await asyncio.Event().wait()
            await way.hear(told, wait_s)
            if loop.time() >= bookmark_s:
                bookmark_s = loop.time() + BOOKMARK_S
                yield {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(version)}}}

    async def _call(self, does: Callable[[], Result], *, reads: bool = False) -> Result:
        await asyncio.sleep(self._way.slow_s)
        if self._dead:  # what a killed process was about to do
            await asyncio.Event().wait()
        match self._way.fault():
            case Fault.CONFLICT if not reads:
                raise ConflictError(409, "Conflict", "the object has been modified")
            case Fault.THROTTLED:
                raise ApiError(429, "TooManyRequests", "please try again later", 2.0)
            case Fault.ERROR | Fault.CONFLICT:
                raise ApiError(500, "InternalError", "etcdserver: leader changed")
            case Fault.UNANSWERED:
                raise ApiError(0, "TimeoutError", "")
            case Fault.LOST:
                does()
                raise ApiError(0, "TimeoutError", "")
            case Fault.KILLED_BEFORE:
                await self._end()
            case Fault.KILLED_AFTER:
                does()
                await self._end()
        return does()

    async def _end(self) -> None:
        self._dead = True
        self._kill()
        await asyncio.Event().wait()
