"""The public port: clients' connections, their exchanges, the line of those that wait, and one clock for all."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING

from drift_router.counters import Rejection, add
from drift_router.dataplane import refusals
from drift_router.dataplane.clients import Client
from drift_router.dataplane.exchanges import Exchange
from drift_router.dataplane.pools import Pool
from drift_router.dataplane.refusals import Refusal
from drift_router.dataplane.requests import Request
from drift_router.dataplane.upstreams import Upstream
from drift_router.errors import RouterError
from drift_router.options import RouterOptions
from drift_router.policies.waiting import Line
from drift_router.routing import Routing
from drift_router.wishes import Wish

if TYPE_CHECKING:
    from drift_engine.tracing.recording import Recorder

log = logging.getLogger(__name__)

SWEEP_S = 0.5
"""How late a time-out may be. One pass over 10,000 connections takes some milliseconds."""

BACKLOG = 1024

TOO_LARGE = (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)


class Serving:
    """Owner of the public port."""

    def __init__(self, options: RouterOptions, routing: Routing, recorder: Recorder | None = None) -> None:
        self.options = options
        self.limits = options.limits
        self.patience = options.patience
        self.retries = options.retries
        self.routing = routing
        self.recorder = recorder
        self._clients: set[Client] = set()
        self._exchanges: set[Exchange] = set()
        self._line: Line[int] = Line(options.queue)
        self._waiting: dict[int, Exchange] = {}
        self._pools: dict[tuple[int, str], Pool] = {}
        self._held_bytes = 0
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._line_due = False
        self.leaving = False
        """Set: it serves on, is not ready any more, and keeps no connection, so that clients go to other routers."""
        self.draining = False
        self._emptied: asyncio.Event | None = None
        self._clock: Callable[[], float] = time.monotonic  # as asyncio's

    # life

    async def start(self) -> int:
        """Listens; returns the port. Raises OSError, and RouterError for certificates that can't be used."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Client(self),
            self.options.host,
            self.options.port,
            backlog=BACKLOG,
            reuse_port=self.options.workers > 1,
            ssl=_tls(self.options),
        )
        self._sweeper = loop.call_later(SWEEP_S, self._sweep)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """No new connections; requests in flight may end within `patience.drain_s`; then everything is closed."""
        self.leaving = self.draining = True
        if self._server is not None:
            self._server.close()
        for client in list(self._clients):
            client.close()
        if self._exchanges:
            self._emptied = asyncio.Event()
            try:
                async with asyncio.timeout(self.patience.drain_s):
                    await self._emptied.wait()
            except TimeoutError:
                log.warning("%d requests were cut at the end", len(self._exchanges))
        for client in list(self._clients):
            client.abort()
        for pool in self._pools.values():
            pool.close()
        if self._sweeper is not None:
            self._sweeper.cancel()

    # for clients

    def now_s(self) -> float:
        return self._clock()

    def opened(self, client: Client) -> None:
        self._clients.add(client)
        if len(self._clients) > self.limits.connections:
            add(self.routing.counters.rejected, Rejection.MEMORY)
            client.abort()

    def closed(self, client: Client) -> None:
        self._clients.discard(client)

    def refused(self, refusal: Refusal) -> None:
        self.routing.refused(refusal.status)
        add(
            self.routing.counters.rejected,
            Rejection.TOO_LARGE if refusal.status in TOO_LARGE else Rejection.MALFORMED,
        )

    def serve(self, request: Request, client: Client) -> None:
        now_s = self._clock()
        try:
            if request.path in (b"/health", b"/healthz", b"/readyz"):
                self._tell_health(client)
                return
            if self.draining:
                add(self.routing.counters.rejected, Rejection.DRAINING)
                raise refusals.unavailable("the router is stopping")
            held_bytes = self._held_bytes + len(request.body)
            if held_bytes > self.limits.held_body_bytes:
                add(self.routing.counters.rejected, Rejection.MEMORY)
                raise refusals.unavailable("the router holds as many bodies as it may")
            wish, prompt = self.routing.admit(request, now_s)
        except Refusal as refusal:
            self.routing.refused(refusal.status)
            client.refuse(refusal)
            return
        self._held_bytes = held_bytes
        exchange = Exchange(self, client, request, wish, prompt)
        self._exchanges.add(exchange)
        self.routing.counters.in_flight = len(self._exchanges)
        exchange.offer()

    # for exchanges

    def connect(self, exchange: Exchange, slot: int) -> Upstream | None:
        pool = self._pool(slot)
        upstream = pool.take()
        if upstream is None:
            pool.connect(exchange.connected)
        return upstream

    def wait(self, exchange: Exchange) -> None:
        key = id(exchange)
        wish = exchange.wish
        if not self._line.add(key, exchange.arrival_s + wish.ttft_s, wish.priority):
            add(self.routing.counters.rejected, Rejection.QUEUE_FULL)
            raise self.overloaded(wish)
        self._waiting[key] = exchange
        self.routing.counters.queue_depth = len(self._waiting)

    def overloaded(self, wish: Wish) -> Refusal:
        now_s = self._clock()
        predicted_s = self.routing.predicted_s(wish, now_s)
        return refusals.overloaded(self._line.retry_after_s(predicted_s, wish.ttft_s, now_s))

    def leave(self, exchange: Exchange) -> None:
        if self._waiting.pop(id(exchange), None) is not None:
            self._line.remove(id(exchange))
            self.routing.counters.queue_depth = len(self._waiting)

    def room(self) -> None:
        """Something changed for the better: those who wait may try again."""
        if self._waiting and not self._line_due:
            self._line_due = True
            asyncio.get_running_loop().call_soon(self._serve_line)

    def over(self, exchange: Exchange) -> None:
        self._exchanges.discard(exchange)
        self._held_bytes -= exchange.held_bytes
        self.routing.counters.in_flight = len(self._exchanges)
        self.room()
        if self._emptied is not None and not self._exchanges:
            self._emptied.set()

    def _serve_line(self) -> None:
        self._line_due = False
        while (key := self._line.pop()) is not None:
            exchange = self._waiting.pop(key)
            exchange.offer()
            if key in self._waiting:
                break  # there is no room for the first: the others wait behind it
            now_s = self._clock()
            self._line.served(now_s)
            self.routing.counters.queue_wait.observe(now_s - exchange.arrival_s)
        self.routing.counters.queue_depth = len(self._waiting)

    def _pool(self, slot: int) -> Pool:
        url = self.routing.registry.address(slot).url
        pool = self._pools.get((slot, url))
        if pool is None:
            pool = self._pools[slot, url] = Pool(url, self.patience.connect_s)
        return pool

    def _sweep(self) -> None:
        now_s = self._clock()
        for client in list(self._clients):
            client.sweep(now_s)
        for exchange in list(self._exchanges):
            exchange.sweep(now_s)
        known = {(slot, address.url) for slot, address in self.routing.registry.addresses().items()}
        for key, pool in list(self._pools.items()):
            pool.sweep(now_s)
            if key not in known:
                pool.close()
                if pool.quiet:
                    del self._pools[key]
        self.room()
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def _tell_health(self, client: Client) -> None:
        ready = not self.leaving and bool(self.routing.registry.snapshot(self._clock()))
        status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        body = b'{"status":"ok"}' if ready else b'{"status":"no node is ready"}'
        client.begin(status, [(b"content-type", b"application/json")], len(body), body)
        client.finish()


def _tls(options: RouterOptions) -> ssl.SSLContext | None:
    if options.tls_certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(options.tls_certificate, options.tls_key)
    except OSError as error:  # SSLError is one
        files = f"tls_certificate {options.tls_certificate} with tls_key {options.tls_key}"
        raise RouterError(f"{files}: {error.strerror or error}") from error
    return context
