"""Calls of the Kubernetes API, as plain data in and out: the official client carries them, with a deadline for each.

What goes wrong is one of few errors that say what a caller can do about it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import aiohttp
from kubernetes.aio import client, config

from drift_operator.cluster import kinds
from drift_operator.errors import PlaceError
from drift_operator.objects import names
from drift_operator.objects.kinds import Kind

Object = dict[str, Any]

CALL_S = 15.0
"""For one call. The API server itself gives up on a webhook after 10 s at the default."""

PAGE = 500
"""Objects of one page of a list: what kubectl asks for."""

MAX_EVENT_BYTES = 8 << 20
"""Of a watch's line: etcd's limit for an object is 1.5 MiB, and JSON escapes at most double it."""


METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


class ApiError(PlaceError):
    """The API server refused, or there was no answer; worth another try later."""

    def __init__(self, status: int, reason: str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(f"{reason or status}: {message}" if message else f"{reason or status}")
        self.status = status
        self.reason = reason
        self.retry_after_s = retry_after_s


class NotFoundError(ApiError):
    pass


class ConflictError(ApiError):
    """Another writer was there first."""


class ExpiredError(ApiError):
    """What was asked for is no longer kept: list anew."""


class InvalidError(ApiError):
    """The object can't be as it was written: trying again changes nothing."""


_ERRORS = {404: NotFoundError, 409: ConflictError, 410: ExpiredError, 400: InvalidError, 422: InvalidError}


async def connect() -> client.ApiClient:
    """As the pod's service account, or as the user's kubeconfig says."""
    settings = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=settings)
    except config.ConfigException:
        await config.load_kube_config(client_configuration=settings)
    return client.ApiClient(settings)


class Api:
    """One connection pool; whoever made it closes it."""

    def __init__(self, carrier: client.ApiClient) -> None:
        self._carrier = carrier

    async def close(self) -> None:
        await self._carrier.close()

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object:
        return await self._call("GET", kinds.path(kind, namespace, name))

    async def exists(self, kind: Kind, namespace: str | None, name: str) -> bool:
        """Only what it is called is sent: of a Secret nothing that is in it."""
        try:
            await self._call("GET", kinds.path(kind, namespace, name), accept=METADATA_ONLY)
        except NotFoundError:
            return False
        return True

    async def get_path(self, path: str) -> Object:
        """Of discovery and the like."""
        return await self._call("GET", path)

    async def list(
        self, kind: Kind, namespace: str | None = None, selector: str = ""
    ) -> tuple[list[Object], str]:
        """All of them, and the version that a watch goes on from."""
        found: list[Object] = []
        query = {"limit": str(PAGE)} | ({"labelSelector": selector} if selector else {})
        while True:
            page = await self._call("GET", kinds.path(kind, namespace), query)
            found += page.get("items") or []
            more = page["metadata"].get("continue")
            if not more:
                return found, str(page["metadata"]["resourceVersion"])
            query["continue"] = more

    async def apply(self, manifest: Object, *, force: bool = True) -> Object:
        """Server-side, as the only owner of what the manifest says. Returns the object as it is now. Without `force`
        what another manager owns is a ConflictError.
        """
        meta = manifest["metadata"]
        path = kinds.path(kinds.of(manifest), meta.get("namespace"), meta["name"])
        query = {"fieldManager": names.FIELD_MANAGER, "force": str(force).lower()}
        return await self._call("PATCH", path, query, manifest, "application/apply-patch+yaml")

    async def apply_status(self, kind: Kind, manifest: Object) -> Object:
        meta = manifest["metadata"]
        query = {"fieldManager": names.FIELD_MANAGER, "force": "true"}
        path = kinds.path(kind, meta["namespace"], meta["name"], "status")
        return await self._call("PATCH", path, query, manifest, "application/apply-patch+yaml")

    async def merge(
        self, kind: Kind, namespace: str, name: str, patch: Object, subresource: str | None = None
    ) -> Object:
        path = kinds.path(kind, namespace, name, subresource)
        query = {"fieldManager": names.FIELD_MANAGER}
        return await self._call("PATCH", path, query, patch, "application/merge-patch+json")

    async def create(self, kind: Kind, manifest: Object) -> Object:
        query = {"fieldManager": names.FIELD_MANAGER}
        path = kinds.path(kind, manifest["metadata"].get("namespace"))
        return await self._call("POST", path, query, manifest)

    async def delete(self, kind: Kind, namespace: str | None, name: str, uid: str | None = None) -> None:
        """In the background; with `uid` only this very object. One that is gone is what was wanted."""
        body: Object = {"propagationPolicy": "Background"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        with contextlib.suppress(NotFoundError):
            await self._call("DELETE", kinds.path(kind, namespace, name), body=body)

    @contextlib.asynccontextmanager
    async def watch(
        self, kind: Kind, namespace: str | None, selector: str, version: str, server_s: float
    ) -> AsyncIterator[AsyncIterator[Object]]:
        """Events `{type, object}` from `version` on, until the server ends them. The reader waits with a deadline."""
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(int(server_s)),
        } | ({"labelSelector": selector} if selector else {})
        asked = await self._carrier.param_serialize(
            "GET",
            kinds.path(kind, namespace),
            {},
            query,
            {"Accept": "application/json"},
            auth_settings=["BearerToken"],
        )
        timeout = aiohttp.ClientTimeout(total=server_s + CALL_S, sock_connect=CALL_S)
        with _translated():
            answer = (await self._carrier.call_api(*asked, _request_timeout=timeout)).response
            try:
                if answer.status != 200:
                    raise _error(answer.status, await answer.read(), answer.headers)
                yield _events(answer.content)
            finally:
                answer.close()

    async def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Object:
        headers = {"Accept": accept} | ({"Content-Type": content_type} if body is not None else {})
        asked = await self._carrier.param_serialize(
            method, path, {}, dict(query or {}), headers, body, auth_settings=["BearerToken"]
        )
        with _translated():
            async with asyncio.timeout(CALL_S):
                answer = await self._carrier.call_api(
                    *asked, _request_timeout=aiohttp.ClientTimeout(total=CALL_S)
                )
                raw = await answer.read()
        if answer.status >= 300:
            raise _error(answer.status, raw, answer.headers)
        read: Object = json.loads(raw)
        return read


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except client.ApiException as error:
        raise _error(error.status or 0, error.body or b"", error.headers or {}) from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise ApiError(0, type(error).__name__, str(error)) from error


async def _events(content: aiohttp.StreamReader) -> AsyncIterator[Object]:
    rest = b""
    async for chunk in content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > MAX_EVENT_BYTES:
            raise ApiError(0, "TooLarge", f"a watch's event is longer than {MAX_EVENT_BYTES} bytes")
        for line in lines:
            if line.strip():
                event: Object = json.loads(line)
                if event.get("type") == "ERROR":
                    status = event["object"]
                    raise _error(int(status.get("code", 0)), json.dumps(status).encode(), {})
                yield event


def _error(status: int, raw: bytes | str, headers: Mapping[str, str]) -> ApiError:
    """A Status object, or whatever stood between us and the API server."""
    try:
        body = json.loads(raw)
        reason, message = str(body.get("reason") or ""), str(body.get("message") or "")
    except (ValueError, AttributeError):
        text = raw.decode(errors="replace") if isinstance(raw, bytes) else raw
        reason, message = "", text[:200]
    try:
        retry_after_s = float(headers.get("Retry-After", ""))
    except ValueError:
        retry_after_s = None
    return _ERRORS.get(status, ApiError)(status, reason, message, retry_after_s)
