"""The router in front of simulated nodes: its own index, registry, policy and accounts, in virtual time.

Prompts are named by their KV pages' names in place of blocks of text. What nodes report is as old as it would be,
their caches are known by their events and by what their answers tell, and what is sent meanwhile is counted. No
network: events are there at once, and a node that is gone has closed its connections.

A request that the router would let wait, because every node would miss its promise, goes where it would go without
one: a simulation refuses nobody.
"""

from __future__ import annotations

import array
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import xxhash
from msgspec.structs import replace

from drift_engine import hashing, wire
from drift_engine.api import page_hints
from drift_engine.bench.results import Slo
from drift_engine.simulation.dispatching import Dispatcher, Making, NodeState, Request
from drift_engine.simulation.nodes import PAGE_TOKENS, name
from drift_engine.simulation.studies import NO_TBT_MS, NO_TTFT_MS
from drift_router import pictures, promises
from drift_router.counters import Counters
from drift_router.dataplane.upstreams import Loss
from drift_router.index.blocks import Blocks
from drift_router.index.prefixes import PrefixIndex
from drift_router.nodes.addresses import Address
from drift_router.nodes.registry import Registry
from drift_router.options import Promise, RouterOptions
from drift_router.pictures import Picture, RouterReport
from drift_router.routing import Dispatch, Outcome, Routing
from drift_router.snapshots import Decision, Policy, Reason
from drift_router.wishes import Wish

REPORT_INTERVAL_S, POLLS_PER_S, STALE_INTERVALS = 0.25, 250.0, 3.0
"""As in `drift_router.nodes.reporting`, which a simulation can't load without an HTTP client."""

KEY_TOKENS = 1024
"""Whose hash says which requests should meet."""

OK, FAILED = 200, 502


@dataclass(slots=True)
class _Flight:
    wish: Wish
    token_ids: Sequence[int]
    dispatch: Dispatch | None = None
    last_s: float | None = None
    drawn: int = 0


class Cost(NamedTuple):
    """What deciding took of this machine."""

    decisions: int
    cpu_s: float


class SimulatedRouter(Dispatcher):
    def __init__(self, policy: Policy, slo: Slo, rate_error: float = 0.0, seed: int = 0) -> None:
        """Each node's rate is misjudged for as long as it lives by a log-normal factor of scale `rate_error`."""
        self.interval_s = REPORT_INTERVAL_S
        self.promise = Promise(slo.ttft_ms or NO_TTFT_MS, slo.ttft_per_token_ms, slo.tbt_ms or NO_TBT_MS)
        options = RouterOptions(policy=policy, promise=self.promise)
        self.index = PrefixIndex(options.index_bytes)
        self.registry = Registry(self.index, self._forget, seed)
        counters = Counters.fresh(self.promise.ttft_ms / 1e3, self.promise.tbt_ms / 1e3)
        self._routing = Routing(options, self.registry, self.index, None, counters, seed=seed)
        self._recent = pictures.Recent()
        self._policy = policy
        self._rate_error = rate_error
        self._dice = random.Random(seed)  # noqa: S311 - a simulation
        self._nodes: dict[int, NodeState] = {}
        self._new: list[int] = []  # of these, not listed yet
        self._indices: dict[int, int] = {}  # slot -> node
        self._slots: dict[int, int] = {}
        self._misjudged: dict[int, float] = {}
        self._flights: dict[str, _Flight] = {}
        self._looked_s = 0.0
        self._decisions = 0
        self._decided_cpu_s = 0.0

    @property
    def listens(self) -> bool:
        return self._policy is Policy.CACHE_AWARE

    @property
    def cost(self) -> Cost:
        return Cost(self._decisions, self._decided_cpu_s)

    @property
    def in_flight(self) -> int:
        return len(self._flights)

    def report(self, now_s: float) -> RouterReport:
        """As the operator reads it."""
        counters = self._routing.counters
        self._recent.sample(counters, now_s)
        picture = Picture(
            counters,
            [],
            self.index.held_bytes,
            len(self.index),
            draining=False,
            promised=promises.at_first(self.promise),
            promised_for_s=now_s,
        )
        return self._recent.report(picture, now_s)

    # nodes

    def joined(self, index: int, node: NodeState, at_s: float) -> None:
        self._nodes[index] = node
        self._misjudged[index] = math.exp(self._dice.gauss(0.0, self._rate_error))
        self._new.append(index)
        self.interval_s = max(REPORT_INTERVAL_S, len(self._nodes) / POLLS_PER_S)
        self.registry.stale_s = max(self.registry.stale_s, STALE_INTERVALS * self.interval_s)

    def left(self, index: int, at_s: float) -> None:
        self._settle(at_s)
        del self._nodes[index]
        self._list(at_s)

    def kept(self, index: int, events: Sequence[wire.KvEvent]) -> None:
        slot = self._slots.get(index)
        if slot is None or index not in self._nodes:
            return
        for event in events:
            if isinstance(event, wire.Stored):
                self.index.stored(slot, event.block_hashes)
            elif isinstance(event, wire.Removed):
                self.index.removed(slot, event.block_hashes)
            else:
                self.index.cleared(slot)

    def look(self, now_s: float) -> None:
        """Their reports."""
        if now_s - self._looked_s < self.interval_s - 1e-9:
            return
        self._looked_s = now_s
        self._settle(now_s)
        for index in self._nodes:
            self._poll(index, now_s)

    def _settle(self, now_s: float) -> None:
        """Lists those that joined, all at once: of nodes that begin together none is cold."""
        if not self._new:
            return
        self._list(now_s)
        for index in self._new:
            if self.listens:
                self.index.restore(self._slots[index], ())
            self._poll(index, now_s)
        self._new.clear()

    def _poll(self, index: int, now_s: float) -> None:
        report = self._nodes[index].report(now_s)
        rate = report.prefill_tokens_per_s * self._misjudged[index]
        self.registry.reported(
            self._slots[index], msgspec.structs.replace(report, prefill_tokens_per_s=rate), now_s
        )

    def _list(self, now_s: float) -> None:
        self.registry.set_nodes(map(_address, self._nodes), now_s)
        by_name = {name(index): index for index in self._nodes}
        self._indices = {slot: by_name[at.name] for slot, at in self.registry.addresses().items()}
        self._slots = {index: slot for slot, index in self._indices.items()}

    def _forget(self, slot: int) -> None:
        self.index.forget(slot)
        self._routing.forget(slot)

    # requests

    def choose(self, request: Request) -> int | None:
        flight = self._flights.get(request.request_id)
        if flight is None:
            flight = self._flights[request.request_id] = _Flight(self._wish(request), request.token_ids)
        self._settle(request.at_s)
        start_s = time.process_time()
        decision = self._decide(flight, request)
        dispatch = None
        if decision.slot is not None:
            dispatch = self._routing.send(flight.wish, decision, request.at_s)
        self._decided_cpu_s += time.process_time() - start_s
        self._decisions += 1
        if dispatch is None:
            return None
        flight.dispatch = dispatch
        return self._indices[dispatch.slot]

    def told(self, request_id: str, times_s: Sequence[float], cached_tokens: int) -> None:
        flight = self._flights[request_id]
        wish, dispatch, routing = flight.wish, flight.dispatch, self._routing
        assert dispatch is not None, "tokens of a request that is on no node"
        if dispatch.status == 0:
            hints: list[tuple[bytes, bytes]] = []
            if self.listens:
                header = page_hints.header(flight.token_ids, "", PAGE_TOKENS, cached_tokens)
                hints.append((b"x-drift-pages", header))
            routing.answered(wish, dispatch, OK, hints)
            routing.first_byte(wish, dispatch, times_s[0], streamed=True)
        for at_s in times_s:
            if flight.last_s is not None:
                routing.gap(wish, dispatch, at_s - flight.last_s, at_s)
            flight.last_s = at_s
        flight.drawn += len(times_s)

    def ended(self, request_id: str, at_s: float, *, ok: bool) -> None:
        flight = self._flights.pop(request_id)
        status = OK if ok else FAILED
        self._routing.ended(flight.wish, flight.dispatch, Outcome.DONE, status, flight.drawn, at_s)

    def broken(self, request_id: str, at_s: float) -> None:
        flight = self._flights[request_id]
        assert flight.dispatch is not None
        loss = Loss.BROKEN if flight.dispatch.status else Loss.RESET
        self._routing.failed(flight.dispatch, loss, at_s)
        flight.dispatch = None

    def _decide(self, flight: _Flight, request: Request) -> Decision:
        routing, wish, begun = self._routing, flight.wish, request.drawn_tokens > 0
        decision = routing.decide(wish, frozenset(), request.at_s, begun=begun)
        if decision.reason is Reason.OVERLOADED:
            decision = routing.decide(replace(wish, ttft_s=math.inf), frozenset(), request.at_s, begun=begun)
        return decision

    def _wish(self, request: Request) -> Wish:
        ids = request.token_ids
        names = list(hashing.names(ids, "", PAGE_TOKENS)) if self.listens else []
        ends = [PAGE_TOKENS * (count + 1) for count in range(len(names))]
        return Wish(
            arrival_s=request.at_s,
            client=None,
            trusted=False,
            prompt_bytes=len(ids),
            tokens=len(ids),
            blocks=Blocks(names, ends, len(ids)),
            key=xxhash.xxh3_64_intdigest(array.array("q", ids[:KEY_TOKENS]).tobytes()),
            ttft_s=self.promise.ttft_ms / 1e3,
            ttft_per_token_s=self.promise.ttft_per_token_ms / 1e3,
            tbt_s=self.promise.tbt_ms / 1e3,
            priority=0,
            session=None,
            explain=False,
            counted_tokens=len(ids),
            tally=self._routing.counters.tally,
        )


def _address(index: int) -> Address:
    """The same for the same node; nobody connects to it."""
    host = f"http://{name(index)}"
    return Address(name(index), f"{host}:8000", f"{host}:9000")


def making(policy: Policy, slo: Slo, rate_error: float = 0.0, seed: int = 0) -> Making:
    """Raises ValueError that names the option."""
    if not 0.0 <= rate_error <= 2.0:
        raise ValueError(f"--routing-error: {rate_error:g} is not between 0 and 2")
    return lambda: SimulatedRouter(policy, slo, rate_error, seed)
