"""HTTP to the control ports of nodes and the admin ports of routers. One pool, a deadline for every call.

A peer that fails is asked less and less often, so that a node that hangs costs its service's loop nothing.
"""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

import aiohttp
import msgspec

from drift_engine import wire
from drift_operator.errors import OperatorError
from drift_operator.levers.setpoints import SetPoint
from drift_router.discovery.pushed import Update
from drift_router.pictures import RouterReport

CALL_S = 1.0
"""From a call to its whole answer. A healthy node answers within 5 ms; a second is a hung event loop."""

CALLS_AT_ONCE = 64
"""Of all services together: what one event loop has in flight without making them late."""

MAX_BYTES = 4 << 20
"""Of an answer: a router's report of 4,096 nodes."""

FAILURES_BEFORE_PAUSE = 3
PAUSE_S, PAUSE_MOST_S = 2.0, 15.0

T = TypeVar("T")


class Unreachable(OperatorError):  # noqa: N818 - an outcome
    """No usable answer; the message says why."""


class Refused(Unreachable):
    """The peer answered, with a status that is no success."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"status {status}: {message}")
        self.status = status


class Channel:
    """Lives in one event loop; whoever made it closes it."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=2 * CALLS_AT_ONCE, keepalive_timeout=60),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=CALL_S),
        )
        self._room = asyncio.Semaphore(CALLS_AT_ONCE)
        self._breakers: dict[str, _Breaker] = {}

    async def close(self) -> None:
        await self._session.close()

    async def node_report(self, url: str, token: str) -> wire.Report:
        return await self._ask("GET", f"{url}/control/v1/report", token, wire.Report)

    async def router_report(self, url: str, token: str) -> RouterReport:
        return await self._ask("GET", f"{url}/control/v1/report", token, RouterReport)

    async def put_split(self, url: str, token: str, asked: SetPoint) -> None:
        await self._ask("PUT", f"{url}/control/v1/split", token, None, _body(asked))

    async def put_targets(self, url: str, token: str, targets: wire.Targets) -> None:
        await self._ask("PUT", f"{url}/control/v1/targets", token, None, msgspec.to_builtins(targets))

    async def put_promise(self, url: str, token: str, targets: wire.Targets, epoch: int) -> None:
        """Of a router: what it promises from now on."""
        body = {"epoch": epoch} | msgspec.to_builtins(targets)
        await self._ask("PUT", f"{url}/control/v1/promise", token, None, body)

    async def put_nodes(self, url: str, token: str, update: Update) -> None:
        """Of a router: all the nodes that there are, where nothing else tells it."""
        await self._ask("PUT", f"{url}/control/v1/nodes", token, None, msgspec.to_builtins(update))

    async def drain(self, url: str, token: str) -> None:
        """The node takes nothing new from now on; how far it is tell its reports."""
        await self._ask("POST", f"{url}/control/v1/drain", token, None, {"timeout_s": 0})

    def forget(self, url: str) -> None:
        """A peer that is no more."""
        self._breakers.pop(url, None)

    async def _ask(
        self, method: str, url: str, token: str, kind: type[T] | None, body: dict[str, Any] | None = None
    ) -> T:
        """Raises Unreachable; also without asking, where the peer failed often and not long ago."""
        peer = url.partition("/control")[0]
        breaker = self._breakers.setdefault(peer, _Breaker())
        loop = asyncio.get_running_loop()
        if (left_s := breaker.left_s(loop.time())) > 0:
            raise Unreachable(f"{breaker.reason}; asked again in {left_s:.0f} s")
        try:
            async with self._room, asyncio.timeout(CALL_S):
                answer = await self._session.request(
                    method, url, headers={"x-drift-token": token}, json=body, allow_redirects=False
                )
                async with answer:
                    raw = await _whole(answer.content)
                    if answer.status != 200:
                        breaker.answered()
                        raise Refused(answer.status, raw[:200].decode(errors="replace"))
                    read = msgspec.json.decode(raw, type=kind) if kind is not None else None
        except (aiohttp.ClientError, OSError) as error:
            reason = f"no answer within {CALL_S:g} s" if isinstance(error, TimeoutError) else str(error)
            breaker.failed(loop.time(), reason)
            raise Unreachable(reason) from error
        except wire.UNREADABLE as error:
            breaker.failed(loop.time(), f"its answer can't be read: {error}")
            raise Unreachable(f"its answer can't be read: {error}") from error
        breaker.answered()
        return read  # type: ignore[return-value] # None where nothing is read


def _body(asked: SetPoint) -> dict[str, Any]:
    """Of `PUT /control/v1/split`; without bounds the node splits as it likes."""
    body: dict[str, Any] = {
        "epoch": asked.epoch,
        "generation": asked.generation,
        "weight": asked.weight,
        "ttl_s": asked.ttl_s,
    }
    if asked.bounds is not None:
        body["bounds"] = dict(zip(("min", "max"), asked.bounds, strict=True))
    return body


async def _whole(content: aiohttp.StreamReader) -> bytes:
    raw = bytearray()
    async for chunk in content.iter_any():
        raw += chunk
        if len(raw) > MAX_BYTES:
            raise aiohttp.ClientPayloadError(f"its answer is longer than {MAX_BYTES} bytes")
    return bytes(raw)


class _Breaker:
    def __init__(self) -> None:
        self.reason = ""
        self._failures = 0
        self._until_s = 0.0

    def left_s(self, now_s: float) -> float:
        return self._until_s - now_s

    def answered(self) -> None:
        self._failures, self._until_s = 0, 0.0

    def failed(self, now_s: float, reason: str) -> None:
        self.reason = reason
        self._failures += 1
        over = self._failures - FAILURES_BEFORE_PAUSE
        if over >= 0:
            self._until_s = now_s + min(PAUSE_S * 2 ** min(over, 10), PAUSE_MOST_S)
