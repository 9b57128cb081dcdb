"""The Kubernetes API as a test speaks to it: plain dicts in and out, over one pool of connections.

Objects are named by their path below the server, as in `/api/v1/namespaces/default/pods/p`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import Configuration

Object = dict[str, Any]

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"

REQUEST_S = 30.0
WATCH_S = 240
"""The server ends a watch after this long; then it begins anew."""
SILENCE_S = 300.0
AGAIN_S = 0.5
LOOK_S = 0.1
"""Between two looks at what is awaited."""
DEADLINE_S = 60.0
LINE_BYTES = 4 * 1024 * 1024
"""Of one event: objects have at most 1.5 MiB."""


class ApiError(Exception):
    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason


class KubeApi:
    def __init__(self, session: aiohttp.ClientSession, server: str) -> None:
        self._session = session
        self._server = server

    async def get(self, path: str, **query: str) -> Object:
        return await self._ask("GET", path, query=query)

    async def find(self, path: str, **query: str) -> Object | None:
        try:
            return await self.get(path, **query)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def create(self, path: str, body: Object) -> Object:
        return await self._ask("POST", path, body)

    async def apply(self, path: str, body: Object, manager: str = "test") -> Object:
        """Server-side."""
        return await self._ask("PATCH", path, body, APPLY, {"fieldManager": manager, "force": "true"})

    async def merge(self, path: str, body: Object, kind: str = MERGE) -> Object:
        return await self._ask("PATCH", path, body, kind)

    async def delete(self, path: str, **options: Any) -> None:
        """What is not there need not be deleted."""
        try:
            await self._ask("DELETE", path, {"kind": "DeleteOptions", "apiVersion": "v1", **options})
        except ApiError as error:
            if error.status != 404:
                raise

    async def until(
        self,
        path: str,
        condition: Callable[[Object | None], bool],
        deadline_s: float = DEADLINE_S,
        **query: str,
    ) -> Object | None:
        """What is there as soon as the condition holds; None where nothing is. Raises TimeoutError, which shows what
        there was instead."""
        found: Object | None = None
        try:
            async with asyncio.timeout(deadline_s):
                while True:
                    found = await self.find(path, **query)
                    if condition(found):
                        return found
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            shown = json.dumps(_readable(found), indent=1)
            raise TimeoutError(f"{path} is not as awaited within {deadline_s:g} s: {shown}") from None

    async def follow(self, path: str, **query: str) -> AsyncIterator[tuple[str, Object]]:
        """ADDED, MODIFIED and DELETED objects for ever, whatever becomes of the server in between."""
        known: dict[str, Object] = {}
        while True:
            try:
                listed = await self.get(path, **query)
                found = {item["metadata"]["uid"]: item for item in listed["items"]}
                for uid in known.keys() - found.keys():
                    yield "DELETED", known.pop(uid)
                for uid, item in found.items():
                    yield ("MODIFIED" if uid in known else "ADDED"), item
                known = found
                async for kind, item in self._watch(path, listed["metadata"]["resourceVersion"], query):
                    if kind == "DELETED":
                        known.pop(item["metadata"]["uid"], None)
                    else:
                        known[item["metadata"]["uid"]] = item
                    yield kind, item
            except (ApiError, aiohttp.ClientError, TimeoutError, ConnectionError):
                await asyncio.sleep(AGAIN_S)

    async def _watch(
        self, path: str, version: str, query: Mapping[str, str]
    ) -> AsyncIterator[tuple[str, Object]]:
        """Until the server ends it, or says that it has forgotten that version."""
        asked = {**query, "watch": "1", "resourceVersion": version, "timeoutSeconds": str(WATCH_S)}
        timeout = aiohttp.ClientTimeout(total=None, sock_read=SILENCE_S)
        async with self._session.get(self._server + path, params=asked, timeout=timeout) as answer:
            await _check(answer)
            async for line in answer.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return
                yield event["type"], event["object"]

    async def _ask(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        kind: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Object:
        data = None if body is None else json.dumps(body).encode()
        async with self._session.request(
            method, self._server + path, data=data, params=query, headers={"content-type": kind}
        ) as answer:
            await _check(answer)
            found: Object = await answer.json()
            return found


async def _check(answer: aiohttp.ClientResponse) -> None:
    if answer.status >= 400:
        text = await answer.text()
        try:
            said = json.loads(text)
        except ValueError:
            said = {}
        raise ApiError(answer.status, said.get("reason", answer.reason or ""), said.get("message", text))


@contextlib.asynccontextmanager
async def session(kubeconfig: Path) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    """With the credentials of its user, and the server's address."""
    found = Configuration()
    await config.load_kube_config(str(kubeconfig), client_configuration=found)
    trust = ssl.create_default_context(cafile=found.ssl_ca_cert)
    if found.cert_file:
        trust.load_cert_chain(found.cert_file, found.key_file)
    token = found.api_key.get("BearerToken") or found.api_key.get("authorization")
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=trust, limit=0),
        headers={"authorization": token} if token else {},
        timeout=aiohttp.ClientTimeout(total=REQUEST_S),
        read_bufsize=LINE_BYTES,
    ) as made:
        yield made, found.host


@contextlib.asynccontextmanager
async def connect(kubeconfig: Path) -> AsyncIterator[KubeApi]:
    async with session(kubeconfig) as (made, server):
        yield KubeApi(made, server)


def _readable(found: Object | None) -> Object | None:
    """Its status first, which tells most, and without who wrote which field, which is most of it."""
    if found is None or "items" in found:
        return found
    metadata = {key: part for key, part in found.get("metadata", {}).items() if key != "managedFields"}
    return {"status": found.get("status")} | found | {"metadata": metadata}
