"""Kubernetes' API server as a pod sees it: lists and watches, with the pod's service account.

Two requests are all that a router needs of Kubernetes, so it loads no client library for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import msgspec

from drift_router.documents import DocumentError

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where Kubernetes mounts a pod's service account."""

MAX_LIST_BYTES = 64 << 20
"""The most nodes that are taken, in slices of 100, are 2 MB."""

MAX_EVENT_BYTES = 4 << 20
"""One object; Kubernetes' own limit is 1.5 MiB."""

_SHOWN_BYTES = 4096
"""Of an error's body that are read for its message."""


class Refused(Exception):  # noqa: N818 - an outcome
    """The API server said no, or something that can't be read; the message says what."""


class Expired(Exception):  # noqa: N818 - an outcome
    """The version to watch from is too old: list again."""


class Event(msgspec.Struct, frozen=True):
    type: str
    """ADDED, MODIFIED, DELETED or BOOKMARK."""
    object: msgspec.Raw


class _Status(msgspec.Struct, frozen=True):
    code: int = 0
    message: str = ""


_event_decoder = msgspec.json.Decoder(Event)


@dataclass(frozen=True, slots=True)
class Access:
    """Where the API server is, and as whom to ask it."""

    url: str
    token_file: Path
    """Read for every request: Kubernetes replaces the token about once an hour."""
    ca_file: Path | None
    """None: the server is asked without TLS."""

    @classmethod
    def of_pod(cls, environ: Mapping[str, str], folder: Path = ACCOUNT) -> Access:
        """Raises DocumentError where this process runs in no pod."""
        host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            raise DocumentError("nodes_service: KUBERNETES_SERVICE_HOST is not set: only a pod can watch one")
        shown = f"[{host}]" if ":" in host else host
        return cls(f"https://{shown}:{port}", folder / "token", folder / "ca.crt")

    @contextlib.asynccontextmanager
    async def session(self, answer_s: float, silent_s: float) -> AsyncIterator[Session]:
        """Connections that trust the authorities of now. Raises OSError where they can't be read."""
        tls = ssl.create_default_context(cafile=self.ca_file) if self.ca_file is not None else False
        timeout = aiohttp.ClientTimeout(total=None, connect=answer_s, sock_read=silent_s)
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls), timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()
        ) as session:
            yield Session(self, session, answer_s)


class Session:
    """Of one `Access`. All raise Refused, aiohttp.ClientError, OSError and TimeoutError."""

    def __init__(self, access: Access, session: aiohttp.ClientSession, answer_s: float) -> None:
        self._access = access
        self._session = session
        self._answer_s = answer_s

    async def list(self, path: str, parameters: Mapping[str, str]) -> bytes:
        """The whole answer, within `answer_s`."""
        async with asyncio.timeout(self._answer_s), self._get(path, parameters) as response:
            document = bytearray()
            async for chunk in response.content.iter_any():
                document += chunk
                if len(document) > MAX_LIST_BYTES:
                    raise Refused(f"{path}: the list is longer than {MAX_LIST_BYTES} bytes")
            return bytes(document)

    async def watch(self, path: str, parameters: Mapping[str, str]) -> AsyncGenerator[Event, None]:
        """Until the server ends it. Raises Expired, too."""
        asked = {**parameters, "watch": "1", "allowWatchBookmarks": "1"}
        async with self._get(path, asked) as response:
            rest = b""
            async for chunk in response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line:
                        yield _event(line)
                if len(rest) > MAX_EVENT_BYTES:
                    raise Refused(f"{path}: an event is longer than {MAX_EVENT_BYTES} bytes")

    @contextlib.asynccontextmanager
    async def _get(self, path: str, parameters: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        token = self._access.token_file.read_text().strip()
        async with asyncio.timeout(self._answer_s):
            response = await self._session.get(
                self._access.url + path,
                params=parameters,
                headers={"authorization": f"Bearer {token}", "accept": "application/json"},
                allow_redirects=False,
            )
        try:
            if response.status == http.HTTPStatus.GONE:
                raise Expired
            if response.status != http.HTTPStatus.OK:
                async with asyncio.timeout(self._answer_s):
                    said = _status(await response.content.read(_SHOWN_BYTES)).message
                raise Refused(f"{path} was answered with status {response.status}{said and f': {said}'}")
            yield response
        finally:
            if response.connection is not None and response.connection.transport is not None:
                response.connection.transport.abort()  # TLS would wait for the other side to take leave
            response.close()


def _event(line: bytes) -> Event:
    try:
        event = _event_decoder.decode(line)
    except msgspec.DecodeError as error:
        raise Refused(f"an event can't be read: {error}") from error
    if event.type == "ERROR":
        status = _status(bytes(event.object))
        if status.code == http.HTTPStatus.GONE:
            raise Expired
        raise Refused(f"the watch ended with status {status.code}: {status.message}")
    return event


def _status(body: bytes) -> _Status:
    try:
        return msgspec.json.decode(body, type=_Status)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Status()
