"""What serves requests, in one process: the public port, the nodes behind it, and all that is known of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from drift_engine import wire
from drift_engine.tracing import starting
from drift_router.counters import Counters
from drift_router.dataplane.serving import Serving
from drift_router.gossip import Outbox
from drift_router.index.prefixes import PrefixIndex
from drift_router.keys import Keys
from drift_router.nodes.addresses import Address
from drift_router.nodes.following import Following
from drift_router.nodes.health import State
from drift_router.nodes.registry import Registry
from drift_router.nodes.reporting import Reporting
from drift_router.nodes.tokenizing import Tokenizing
from drift_router.options import Promise, RouterOptions
from drift_router.pictures import Picture
from drift_router.routing import Routing


class Worker:
    """Is told which nodes and which API keys there are; reads no files and has no port but the public one."""

    def __init__(self, options: RouterOptions, outbox: Outbox | None = None) -> None:
        self.counters = Counters.fresh(options.promise.ttft_ms / 1e3, options.promise.tbt_ms / 1e3)
        self.index = PrefixIndex(options.index_bytes)
        self.registry = Registry(self.index, self._forget)
        self.routing = Routing(options, self.registry, self.index, None, self.counters, outbox)
        self._recorder = starting.start(options.tracing, "drift-router", counts=self.counters.trace_spans)
        self.serving = Serving(options, self.routing, self._recorder)
        self.port = 0
        self._token = options.control_token
        self._following = Following(self.index)
        self._tokenizing = Tokenizing()
        self.routing.aliases = self._following.aliases
        self.routing.ask = self._tokenizing.ask
        self._reporting = Reporting(self.registry, options.control_token, heard=self._heard)
        self._followed: dict[int, Address] = {}

    def now_s(self) -> float:
        return asyncio.get_running_loop().time()

    async def start(self) -> None:
        """Looks after its nodes."""
        await self._reporting.start()

    async def serve(self) -> int:
        """Takes requests; returns the port. Raises OSError."""
        self.port = await self.serving.start()
        return self.port

    def leave(self) -> None:
        """Serves on, and is not ready any more."""
        self.serving.leaving = True

    async def drain(self) -> None:
        """Takes nothing new, and ends when all that is in flight has ended, or for too long not."""
        await self.serving.stop()

    async def stop(self) -> None:
        await self._following.close()
        await self._tokenizing.close()
        await self._reporting.close()
        if self._recorder is not None:
            await self._recorder.stop()

    async def picture(self) -> Picture:
        return self.seen()

    def seen(self) -> Picture:
        return Picture(
            counters=self.counters.copy(),
            nodes=self.registry.status(self.now_s()),
            index_bytes=self.index.held_bytes,
            index_blocks=len(self.index),
            draining=self.serving.leaving,
            decided=self.routing.decided.told(self.now_s()),
        )

    @property
    def knows_nodes(self) -> bool:
        """Every node was asked how it does, and has answered or not."""
        return all(
            node.health is not State.UNKNOWN or node.problem for node in self.registry.status(self.now_s())
        )

    def take_keys(self, keys: Keys) -> None:
        self.routing.accept(keys)

    def take_promise(self, promise: Promise, number: int) -> None:
        self.routing.promise(promise, number)

    def take_nodes(self, listed: Iterable[Address]) -> None:
        """Nodes come and go."""
        self.registry.set_nodes(listed, self.now_s())
        self.counters.keep_nodes({address.name for address in self.registry.addresses().values()})
        self._reporting.sync()
        wanted = {
            slot: address for slot, address in self.registry.addresses().items() if self._tells(address)
        }
        for slot in self._followed.keys() - wanted.keys():
            self._unfollow(slot)
        for slot, address in wanted.items():
            if slot not in self._followed:
                self._follow(slot, address)
        self.serving.room()

    def _heard(self, slot: int, report: wire.Report, now_s: float) -> None:
        self._following.expect(slot, report.kv_events_sequence, now_s)
        self.serving.room()

    def _forget(self, slot: int) -> None:
        """Its cache is not what it was."""
        self._unfollow(slot)
        self.index.forget(slot)
        self.routing.forget(slot)
        address = self.registry.addresses().get(slot)
        if address is not None and self._tells(address):
            self._follow(slot, address)

    def _tells(self, address: Address) -> bool:
        """Of its cache."""
        return address.events_url is not None or (address.control_url is not None and bool(self._token))

    def _follow(self, slot: int, address: Address) -> None:
        self._followed[slot] = address
        if address.control_url is not None:
            self._following.start(slot, address.control_url, self._token)
        else:
            assert address.events_url is not None
            assert address.replay_url is not None
            self._following.subscribe(slot, address.events_url, address.replay_url)

    def _unfollow(self, slot: int) -> None:
        if self._followed.pop(slot, None) is not None:
            self._following.stop(slot)
