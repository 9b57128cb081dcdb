"""Keeps a cache true to the API server: for each kind list, then watch, for as long as the operator lives.

A watch that ends goes on where it was; one that is told that this is too long ago (410), or anything else, lists
anew. One that says nothing, not even a bookmark, counts as dead: connections that nobody closed stay silent for ever.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable

from drift_operator.cluster.api import Api, ApiError, ExpiredError
from drift_operator.cluster.caches import Cache
from drift_operator.objects.kinds import Kind

log = logging.getLogger(__name__)

SERVER_S = 240.0
"""A watch is opened anew so often: balancers between us and the API server cut what is older than 5 minutes."""

SILENT_S = 90.0
"""The API server sends a bookmark at least every 60 s."""

RETRY_S, RETRY_MOST_S = 0.5, 30.0


class Watching:
    """Owns one task for each kind and namespace."""

    def __init__(
        self,
        api: Api,
        cache: Cache,
        namespaces: Iterable[str],
        selector: str,
        beat: Callable[[str], None],
        restarted: Callable[[str, int], None],
    ) -> None:
        """Without namespaces: all of them. `beat` hears of every sign of life, by the kind's name; `restarted`
        how often a watch was begun again: 0 times when it begins."""
        self._api = api
        self._cache = cache
        self._namespaces: tuple[str | None, ...] = tuple(namespaces) or (None,)
        self._selector = selector
        self._beat = beat
        self._restarted = restarted
        self._tasks: dict[Kind, list[asyncio.Task[None]]] = {}
        self._listed: dict[Kind, set[str | None]] = {}

    def start(self, kind: Kind) -> None:
        if kind not in self._tasks:
            self._listed[kind] = set()
            self._restarted(kind.plural, 0)
            self._tasks[kind] = [
                asyncio.create_task(self._follow(kind, namespace), name=f"watching {kind.plural}")
                for namespace in self._namespaces
            ]

    def complete(self) -> bool:
        """Everything there is has been listed once."""
        return all(listed == set(self._namespaces) for listed in self._listed.values())

    async def stop(self, kind: Kind) -> None:
        """The cluster does not know the kind any more."""
        tasks = self._tasks.pop(kind, [])
        self._listed.pop(kind, None)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for namespace in self._namespaces:
            self._cache.replace(kind, namespace, ())

    async def close(self) -> None:
        tasks = [task for of_kind in self._tasks.values() for task in of_kind]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, kind: Kind, namespace: str | None) -> None:
        version, pause_s = "", RETRY_S
        while True:
            try:
                if not version:
                    items, version = await self._api.list(kind, namespace, self._selector)
                    for item in items:  # a list leaves them out of its items
                        item.setdefault("apiVersion", kind.api_version)
                        item.setdefault("kind", kind.kind)
                    self._cache.replace(kind, namespace, items)
                    self._listed[kind].add(namespace)
                self._beat(kind.plural)
                version = await self._watch(kind, namespace, version)
                pause_s = RETRY_S
            except ExpiredError:
                version = ""
                self._restarted(kind.plural, 1)
            except (ApiError, TimeoutError) as error:
                version = ""
                self._restarted(kind.plural, 1)
                log.warning("watching %s: %s; again in %.1f s", kind.plural, error or "silence", pause_s)
                await asyncio.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311 - spreads retries
                pause_s = min(2 * pause_s, RETRY_MOST_S)

    async def _watch(self, kind: Kind, namespace: str | None, version: str) -> str:
        """The version to go on from, when the server ended the watch."""
        async with (
            asyncio.timeout(SILENT_S) as silence,
            self._api.watch(kind, namespace, self._selector, version, SERVER_S) as events,
        ):
            async for event in events:
                silence.reschedule(asyncio.get_running_loop().time() + SILENT_S)
                item = event["object"]
                version = str(item["metadata"]["resourceVersion"])
                self._beat(kind.plural)
                if event["type"] == "DELETED":
                    self._cache.drop(kind, item)
                elif event["type"] != "BOOKMARK":
                    self._cache.put(kind, item)
        return version
