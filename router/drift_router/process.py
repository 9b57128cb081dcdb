"""One router: what serves requests, the files and the control around it, and how long all of that runs."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import msgspec
from aiohttp import web

from drift_engine.tracing import starting
from drift_router import admin, keys, promises
from drift_router.discovery.api_server import Access
from drift_router.discovery.endpoint_slices import EndpointSlices
from drift_router.discovery.pushed import OldEpoch, Pushed, Update
from drift_router.discovery.sources import Source
from drift_router.discovery.static_file import StaticFile
from drift_router.documents import DocumentError, shown
from drift_router.errors import RouterError
from drift_router.keys import Key, Keys
from drift_router.nodes.addresses import Address
from drift_router.options import Promise, RouterOptions
from drift_router.pictures import Picture
from drift_router.promises import Promised
from drift_router.reloading import Reloading
from drift_router.worker import Worker
from drift_router.workers.crew import Crew

FILES_PER_CONNECTION = 2
"""A client's, and its node's."""


class Workers(Protocol):
    """What serves requests: in this process (`worker.Worker`), or in several of their own (`workers.crew.Crew`)."""

    async def start(self) -> None: ...

    def take_nodes(self, listed: tuple[Address, ...]) -> None: ...

    def take_keys(self, keys: Keys) -> None: ...

    def take_promise(self, promise: Promise, number: int) -> None:
        """`number`: how often it changed."""

    async def serve(self) -> int:
        """From here on, on the port that is returned. Raises OSError or RouterError."""

    async def picture(self) -> Picture:
        """By then they have taken what they were told before. Raises TimeoutError."""

    def leave(self) -> None:
        """Serve on, and be not ready any more."""

    async def drain(self) -> None: ...

    async def stop(self) -> None: ...


class Router:
    """Files, control and admin port around what serves. `start` raises OSError, RouterError or DocumentError."""

    def __init__(self, options: RouterOptions, workers: Workers) -> None:
        self.options = options
        self.pushed = Pushed(addresses_of(options.nodes))
        self.promised = promises.at_first(options.promise)
        self.port = self.admin_port = 0
        self._changes = 0  # of the promise
        self._promised_s = 0.0
        self._workers = workers
        self._source: Source = _source(options) or self.pushed
        self._keys = _keys(options)
        self._admin = web.AppRunner(
            admin.create_app(self, options.control_token), access_log=None, handle_signals=False
        )

    async def start(self) -> None:
        self._promised_s = _now_s()
        digests = self.options.api_key_sha256
        if digests:
            fixed = [Key(name=f"key-{place}", sha256=digest) for place, digest in enumerate(digests)]
            self._workers.take_keys(Keys(fixed))
        if self._keys is not None:
            await self._keys.start(self._workers.take_keys)
        await self._workers.start()
        await self._source.start(self._workers.take_nodes)
        self.port = await self._workers.serve()
        await self._admin.setup()
        await web.TCPSite(self._admin, self.options.admin_host, self.options.admin_port).start()
        self.admin_port = int(self._admin.addresses[0][1])

    async def stop(self) -> None:
        """Whoever sends requests here may notice first; then those in flight end. The admin port stays until then."""
        self._workers.leave()
        await asyncio.sleep(self.options.patience.leave_s)
        await self._workers.drain()
        await self._source.close()
        if self._keys is not None:
            await self._keys.close()
        await self._admin.cleanup()

    # for the admin port

    async def picture(self) -> Picture:
        problems = self._source.problems + (self._keys.problems if self._keys is not None else 0)
        return msgspec.structs.replace(
            await self._workers.picture(),
            reload_failures=problems,
            nodes_problem=self._source.problem,
            promised=self.promised,
            promised_for_s=_now_s() - self._promised_s,
        )

    async def take_promise(self, asked: Promised) -> None:
        """Raises OldEpoch; TimeoutError where a worker does not say that it has taken it."""
        if asked.epoch < self.promised.epoch:
            raise OldEpoch(asked.epoch, self.promised.epoch)
        changed = asked.promise != self.promised.promise
        self.promised = asked
        if changed:
            self._changes += 1
            self._promised_s = _now_s()
            self._workers.take_promise(asked.promise, self._changes)
        await self._workers.picture()

    async def take_nodes(self, update: Update) -> None:
        """Raises OldEpoch, DocumentError, or PermissionError where a file says which nodes there are; TimeoutError
        where a worker does not say that it has taken them.
        """
        if self._source is not self.pushed:
            options = self.options
            raise PermissionError(f"the nodes are those of {options.nodes_file or options.nodes_service}")
        self.pushed.take(update)
        await self._workers.picture()


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _source(options: RouterOptions) -> Source | None:
    """None: nodes are pushed. Raises DocumentError."""
    if options.nodes_service is not None:
        return EndpointSlices(options.nodes_service, Access.of_pod(os.environ))
    return StaticFile(Path(options.nodes_file)) if options.nodes_file is not None else None


def _keys(options: RouterOptions) -> Reloading[Keys] | None:
    if options.keys_dir is not None:
        return Reloading(Path(options.keys_dir), keys.load_folder)
    return Reloading(Path(options.keys_file), keys.load) if options.keys_file is not None else None


def addresses_of(urls: Iterable[str]) -> list[Address]:
    """`URL`, `URL,CONTROL_URL` or `URL,events=URL,replay=URL`, named in order, or with `NAME=` in front. Raises
    ValueError for a wrong one.
    """
    return [_address_of(text, f"node-{place}") for place, text in enumerate(urls)]


def _address_of(text: str, unnamed: str) -> Address:
    first, *others = text.split(",")
    name, named, url = first.rpartition("=")
    found: dict[str, str] = {}
    for other in others:
        key, _, value = other.rpartition("=")
        key = key or "control"
        if key not in ("control", "events", "replay"):
            raise ValueError(f"node: {shown(key)} is none of control, events and replay")
        if (field := f"{key}_url") in found:
            raise ValueError(f"{field}: is given twice")
        if value:
            found[field] = value
    return Address(
        name=name if named else unnamed,
        url=url,
        control_url=found.get("control_url"),
        events_url=found.get("events_url"),
        replay_url=found.get("replay_url"),
    )


def addresses(router: Router) -> dict[str, object]:
    """Where it serves, for whoever started it."""
    options = router.options
    return {
        "event": "serving",
        "url": _url(options.host, router.port, tls=options.tls_certificate is not None),
        "admin_url": _url(options.admin_host, router.admin_port, tls=False),
    }


def serve(options: RouterOptions, started: Callable[[Router], None]) -> None:
    """Until SIGTERM or SIGINT; a second one cuts what is in flight. Raises RouterError or
    OptionsError where it can't begin.
    """
    starting.check(options.tracing)  # once, and not by each of several workers
    raise_file_limit(options)
    asyncio.run(_serve(options, started))


async def _serve(options: RouterOptions, started: Callable[[Router], None]) -> None:
    loop = asyncio.get_running_loop()
    asked, again = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, lambda: (again if asked.is_set() else asked).set())
    workers: Workers = Worker(options) if options.workers == 1 else Crew(options)
    try:
        router = Router(options, workers)
        await router.start()
        started(router)
        await asked.wait()
        stopping = asyncio.ensure_future(router.stop())
        at_once = asyncio.ensure_future(again.wait())
        await asyncio.wait({stopping, at_once}, return_when=asyncio.FIRST_COMPLETED)
        for task in (stopping, at_once):
            task.cancel()
    except DocumentError as error:
        raise RouterError(str(error)) from error
    except ValueError as error:
        raise RouterError(f"nodes: {error}") from error
    except OSError as error:
        raise RouterError(f"{options.host}:{options.port}: {error.strerror or error}") from error
    finally:
        await workers.stop()


def _url(host: str, port: int, *, tls: bool) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"{'https' if tls else 'http'}://{f'[{shown}]' if ':' in shown else shown}:{port}"


def raise_file_limit(options: RouterOptions) -> None:
    """As many descriptors as connections may be open on both sides, if we are allowed."""
    wanted = FILES_PER_CONNECTION * options.limits.connections + 256
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
