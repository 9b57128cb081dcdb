"""Asks every node how it does, and tells the registry.

One of our nodes is asked for its report (`GET /control/v1/report`), a server of others whether it lives (`GET
/health`, or `/v1/models` where there is no such thing). One task a node, each with at most one question open; how
often they ask goes down as nodes get more, so that it costs the same.
"""

from __future__ import annotations

import asyncio
import http
import logging
import random
import time
from collections.abc import Callable

import aiohttp
import msgspec

from drift_engine import wire
from drift_router.nodes.addresses import Address
from drift_router.nodes.registry import STALE_S, Registry

log = logging.getLogger(__name__)

REPORT_INTERVAL_S = 0.25
"""Some steps of a prefill; between reports the registry counts what it sends. Estimate."""

LIFE_INTERVAL_S = 2.0
"""Between two questions to a server that only says that it lives. Estimate."""

POLLS_PER_S = 250.0
"""Of all nodes together: 10 % of a core, at 0.4 ms a question (200 nodes on two shared cores, most of it the
kernel's). With 1,000 nodes each is asked every 4 s."""

JITTER = 0.2
"""Share of the interval, so that nodes are not all asked at once."""

DEADLINE_S = 1.0
"""Of one question. A node whose loop is stuck for longer can't serve a stream either."""

MAX_BODY_BYTES = 256 * 1024
"""Of an answer. A report with all splits of the largest device has 10 KiB."""

STALE_INTERVALS = 3.0
"""Where reports are seldom, one is old after so many intervals."""

REPORT_PATH = "/control/v1/report"
LIFE_PATHS = ("/health", "/v1/models")

_NO_SUCH_PATH = (
    http.HTTPStatus.NOT_FOUND,
    http.HTTPStatus.METHOD_NOT_ALLOWED,
    http.HTTPStatus.NOT_IMPLEMENTED,
)

Heard = Callable[[int, wire.Report, float], None]
"""A slot, what its node reported, and when."""

_decoder = msgspec.json.Decoder(wire.Report)


class Reporting:
    """Polls from `start` to `close`; call `sync` when the registry's nodes changed."""

    def __init__(
        self,
        registry: Registry,
        control_token: str,
        heard: Heard | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Without a token nodes of ours are asked as others are: whether they live. `heard` gets the reports, too."""
        self._registry = registry
        self._headers = {"x-drift-token": control_token} if control_token else {}
        self._heard = heard
        self._clock = clock
        self._random = random.Random()  # noqa: S311 - jitter
        self._session: aiohttp.ClientSession | None = None
        self._tasks: dict[tuple[int, Address], asyncio.Task[None]] = {}

    async def start(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=4 * LIFE_INTERVAL_S),
            timeout=aiohttp.ClientTimeout(total=DEADLINE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={"accept-encoding": "identity"},
        )
        self.sync()

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()
        if self._session is not None:
            await self._session.close()

    def sync(self) -> None:
        """One task for every node. Nothing is awaited before, so that no answer meets a reused slot."""
        wanted = {
            (slot, msgspec.structs.replace(address, weight=1.0, draining=False))
            for slot, address in self._registry.addresses().items()
        }
        for key in self._tasks.keys() - wanted:
            self._tasks.pop(key).cancel()
        for key in wanted - self._tasks.keys():
            self._tasks[key] = asyncio.get_running_loop().create_task(self._follow(*key))
        slow_s = len(wanted) / POLLS_PER_S
        self._registry.stale_s = max(STALE_S, STALE_INTERVALS * slow_s)

    async def _follow(self, slot: int, address: Address) -> None:
        asked_for_report = address.control_url is not None and bool(self._headers)
        usual_s = REPORT_INTERVAL_S if asked_for_report else LIFE_INTERVAL_S
        path, problem = LIFE_PATHS[0], ""
        while True:
            try:
                if asked_for_report:
                    now = await self._report(slot, f"{address.control_url}".rstrip("/") + REPORT_PATH)
                else:
                    path, now = await self._life(slot, address.url.rstrip("/"), path)
            except (
                Exception
            ) as error:  # whatever it is, the node did not answer; the next question is asked anyway
                now = _described(error)
                refused = isinstance(error, aiohttp.ClientConnectorError)
                self._registry.missed(slot, self._clock(), now, refused=refused)
            if now != problem:
                problem = now
                if problem:
                    log.warning("node %s: %s", address.name, problem)
                else:
                    log.info("node %s answers", address.name)
            interval_s = max(usual_s, len(self._tasks) / POLLS_PER_S)
            await asyncio.sleep(interval_s * (1 + JITTER * self._random.uniform(-1, 1)))

    async def _report(self, slot: int, url: str) -> str:
        """What is wrong, although the node lives; empty: nothing."""
        status, body = await self._get(url, self._headers)
        if status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
            raise _Unusable(f"its control port answered {status}")
        if status == http.HTTPStatus.OK:
            try:
                report = _decoder.decode(body)
                self._registry.reported(slot, report, self._clock())
                if self._heard is not None:
                    self._heard(slot, report, self._clock())
                return ""
            except msgspec.ValidationError as error:  # JSON, of another version: no reason to send it nothing
                problem = f"its report can't be read: {error}"
        else:
            problem = f"its control port answered {status}; was it given the same control token?"
        self._registry.answered(slot, self._clock(), problem)
        return problem

    async def _life(self, slot: int, url: str, path: str) -> tuple[str, str]:
        """The path to ask next time. All but a server error is a sign of life: no key is sent along."""
        status, _ = await self._get(url + path, {})
        if status in _NO_SUCH_PATH and path == LIFE_PATHS[0]:
            path = LIFE_PATHS[1]
            status, _ = await self._get(url + path, {})
        if status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
            raise _Unusable(f"{path} answered {status}")
        self._registry.answered(slot, self._clock())
        return path, ""

    async def _get(self, url: str, headers: dict[str, str]) -> tuple[int, bytes]:
        assert self._session is not None
        async with self._session.get(url, headers=headers, allow_redirects=False) as answer:
            body = b""
            async for piece in answer.content.iter_any():
                body += piece
                if len(body) > MAX_BODY_BYTES:
                    raise _Unusable(f"its answer is longer than {MAX_BODY_BYTES} bytes")
            return answer.status, body


class _Unusable(Exception):  # noqa: N818 - a fact about the node
    """An answer that is none."""


def _described(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {DEADLINE_S:g} s"
    if isinstance(error, wire.UNREADABLE):
        return f"its report is not JSON: {error}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection: {error.os_error.strerror or error.os_error}"
    return str(error) or type(error).__name__
