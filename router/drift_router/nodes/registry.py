"""All that is known of every node, and the nodes that a request may be sent to.

In: the list of nodes (discovery), their reports (reporting), what becomes of every request (data plane), and what
other workers have on the nodes (peers). Out: the policy's `snapshots.Node`s. Pure: no socket, no clock; every call of
the data plane is O(1).

A request's books are kept by its `Handle`, from `sent` until `finished` or `failed`, whichever is first. A handle
keeps its node's books alive: a node that was taken off the list has its slot until its last request ended.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from drift_engine import wire
from drift_router import snapshots
from drift_router.nodes import addresses, health
from drift_router.nodes.addresses import Address
from drift_router.nodes.breaker import Breaker, Failure
from drift_router.nodes.figures import TRUST_GAIN, Prefill, Slope, Tail
from drift_router.nodes.known import KnownNode
from drift_router.nodes.peers import Load
from drift_router.nodes.statuses import NodeStatus

STALE_S = 2.0
"""Age from which on a report counts no more: eight missed ones. A node whose figures stand still at zero would draw
all traffic to itself."""

MOST_LENGTHS = 16
"""Of prompts, for which a node tells what goes before them: twice as many as ours. A decision looks at them all."""

REFRESH_S = 0.1
"""What changes by time alone (warmth, circuits, the age of reports) is looked at this often: no more than 1 % of the
shortest of those times off, and 1,000 nodes cost 4 % of a core."""

_WAITING, _ANSWERING, _ENDED = 0, 1, 2


class IndexFacts(Protocol):
    """What is asked of the prefix index here."""

    def state(self, slot: int) -> snapshots.IndexState: ...


class Handle:
    """One request on one node. Made by `Registry.sent`, and only to be given back to the registry."""

    __slots__ = (
        "_ahead_tokens",
        "_breaker",
        "_node",
        "_sent_s",
        "_stage",
        "_tokens",
        "_trial",
        "_unseen",
        "slot",
    )

    def __init__(self, node: KnownNode, tokens: int, now_s: float, stale_s: float) -> None:
        self.slot = node.slot
        self._node = node
        self._tokens = tokens
        self._ahead_tokens = node.waiting_tokens
        self._unseen = node.unseen.sent(tokens, now_s, stale_s)
        self._sent_s = now_s
        self._stage = _WAITING
        self._breaker = node.breaker
        self._trial = node.breaker.begin() if node.breaker.admits(now_s) else 0


class Registry:
    """`forget` is called with a slot whose node's cache is not what it was: the node restarted, or left."""

    def __init__(self, index: IndexFacts, forget: Callable[[int], None], seed: int | None = None) -> None:
        self.stale_s = STALE_S
        """Longer where reports come more seldom than usual."""
        self._index = index
        self._forget = forget
        self._random = random.Random(seed)  # noqa: S311 - jitter
        self._by_slot: dict[int, KnownNode] = {}
        self._by_name: dict[str, KnownNode] = {}
        self._snapshot: tuple[snapshots.Node, ...] = ()
        self._places: dict[int, int] = {}  # slot -> where in the snapshot
        self._changed: set[int] = set()  # slots whose figures changed
        self._outdated = False
        self._last_resort = False  # no circuit lets anything through: none counts
        self._silence = False  # no node is willing: those that were a moment ago count
        self._warmest = 1.0  # of the snapshot's nodes: where all are new, none is to be spared
        self._refresh_s = -math.inf

    # which nodes there are

    def set_nodes(self, listed: Iterable[Address], now_s: float) -> None:
        """Nodes with the same name and URLs stay who they are. Names differ, and URLs (DocumentError)."""
        wanted = {address.name: address for address in addresses.checked(tuple(listed))}
        first = not self._by_name
        for name, node in list(self._by_name.items()):
            address = wanted.get(name)
            if address is None or _place(address) != _place(node.address):
                self._remove(node)
            else:
                node.address = address
                del wanted[name]
        for name, address in wanted.items():
            node = KnownNode(address, self._free_slot(), warm=first)
            self._by_name[name] = self._by_slot[node.slot] = node
        self._outdated = True

    def addresses(self) -> dict[int, Address]:
        """Of the nodes on the list, by slot."""
        return {node.slot: node.address for node in self._by_name.values()}

    def address(self, slot: int) -> Address:
        """Also of one that was removed, while a handle of it is open. Raises KeyError."""
        return self._by_slot[slot].address

    def _remove(self, node: KnownNode) -> None:
        node.removed = True
        del self._by_name[node.address.name]
        self._release(node)
        if node.in_flight:
            self._forget(node.slot)

    def _release(self, node: KnownNode) -> None:
        if node.removed and not node.in_flight:
            del self._by_slot[node.slot]
            self._forget(node.slot)  # also what its last answers taught

    def _free_slot(self) -> int:
        slot = 0
        while slot in self._by_slot:
            slot += 1
        return slot

    # what the policy sees

    def snapshot(self, now_s: float) -> tuple[snapshots.Node, ...]:
        """The nodes that may be sent requests. The same object as long as nothing changed.

        Where the circuits of all that are willing are open, none of them counts: a request that is refused here is
        lost for certain. A smaller share of open circuits changes nothing, for the rest is not overrun: requests wait
        for room. Where none is willing, those count that fell silent less than LOST_S ago: all of them at once is
        what a machine looks like that has no processor to spare, and they go on with what they have.
        """
        if now_s >= self._refresh_s or self._outdated:
            self._rebuild(now_s)
        elif self._changed:
            self._update(now_s)
        return self._snapshot

    def _rebuild(self, now_s: float) -> None:
        willing = [node for node in self._by_name.values() if node.willing]
        self._silence = not willing
        if self._silence:
            silent = [node for node in self._by_name.values() if node.silent(now_s)]
            eligible, self._last_resort = [node for node in silent if node.breaker.admits(now_s)], False
        else:
            admitted = [node for node in willing if node.breaker.admits(now_s)]
            eligible, self._last_resort = admitted or willing, not admitted
        self._warmest = max([node.health.warmth(now_s) for node in eligible], default=1.0)
        self._snapshot = tuple([self._seen(node, now_s) for node in eligible])
        self._places = {node.slot: place for place, node in enumerate(eligible)}
        self._changed.clear()
        self._outdated = False
        self._refresh_s = now_s + REFRESH_S

    def _update(self, now_s: float) -> None:
        updated = list(self._snapshot)
        for slot in self._changed:
            if (place := self._places.get(slot)) is not None:
                updated[place] = self._seen(self._by_slot[slot], now_s)
        self._changed.clear()
        self._snapshot = tuple(updated)

    def _seen(self, node: KnownNode, now_s: float) -> snapshots.Node:
        return node.seen(self._index.state(node.slot), self._warmest, now_s, self.stale_s)

    # one request's way

    def sent(self, slot: int, uncached_tokens: int, now_s: float) -> Handle | None:
        """A request goes to the node. None: it left, or its circuit opened since the snapshot; choose again."""
        node = self._by_slot.get(slot)
        if node is None or node.removed or not (self._last_resort or node.breaker.admits(now_s)):
            return None
        handle = Handle(node, uncached_tokens, now_s, self.stale_s)
        node.in_flight += 1
        node.own_waiting_tokens += uncached_tokens
        node.assigned.add(uncached_tokens, now_s)
        self._touch(handle, now_s)
        return handle

    def first_byte(self, handle: Handle, now_s: float, *, timed: bool = True) -> None:
        """`timed`: it is the first token's, not a whole answer's."""
        if handle._stage != _WAITING:
            return
        node = handle._node
        handle._stage = _ANSWERING
        self._computed(handle)
        computed_tokens, waited_s = handle._ahead_tokens + handle._tokens, now_s - handle._sent_s
        if timed:
            node.prefill.observe(computed_tokens, waited_s)
        else:
            node.prefill.answered(computed_tokens, waited_s)
        handle._breaker.succeeded(handle._trial, now_s)
        node.health.sign(now_s)
        self._touch(handle, now_s)

    def token_gap(self, handle: Handle, gap_s: float, now_s: float) -> None:
        """Between two tokens of an answer."""
        node = handle._node
        node.tail.observe(gap_s)
        node.health.sign(now_s)

    def hit(self, handle: Handle, promised_tokens: int, cached_tokens: int) -> None:
        """The answer said how much of the prompt was cached, after the index had promised so much."""
        if promised_tokens > 0:
            share = min(1.0, max(0.0, cached_tokens / promised_tokens))
            handle._node.trust += TRUST_GAIN * (share - handle._node.trust)
            self._changed.add(handle.slot)

    def finished(self, handle: Handle, now_s: float) -> None:
        """Its last byte came, or its client went."""
        if handle._stage == _ENDED:
            return
        handle._breaker.abandoned(handle._trial)
        if handle._stage == _ANSWERING:
            handle._node.health.sign(now_s)
        self._end(handle, now_s)

    def lost(self, handle: Handle, now_s: float) -> bool:
        """Nothing is to be expected from the node any more: it is unreachable, or off the list and silent. Its
        connections may stay open for ever: a network that is cut closes none."""
        return handle._node.lost(handle._sent_s, now_s)

    def failed(self, handle: Handle, failure: Failure, now_s: float) -> None:
        """The node failed it; what goes on elsewhere is another handle's."""
        if handle._stage == _ENDED:
            return
        node = handle._node
        if handle._breaker is node.breaker:  # else it is the process before that failed
            node.told_draining |= failure is Failure.DRAINING
            node.refused |= failure is Failure.CONNECT
        handle._breaker.failed(handle._trial, failure, now_s, self._random.random())
        self._end(handle, now_s)
        self._judge(node, now_s)

    def _computed(self, handle: Handle) -> None:
        """Its tokens wait no more."""
        handle._node.own_waiting_tokens -= handle._tokens
        handle._node.unseen.seen(handle._unseen)

    def _end(self, handle: Handle, now_s: float) -> None:
        node = handle._node
        if handle._stage == _WAITING:
            self._computed(handle)
        handle._stage = _ENDED
        node.in_flight -= 1
        self._touch(handle, now_s)
        self._release(node)

    def _touch(self, handle: Handle, now_s: float) -> None:
        """Figures of its node changed; of a trial's, whether it may be sent requests as well."""
        self._changed.add(handle.slot)
        if handle._trial:
            self._judge(handle._node, now_s)

    def _judge(self, node: KnownNode, now_s: float) -> None:
        """Something of it changed, and maybe whether it may be sent requests."""
        self._changed.add(node.slot)
        if self._eligible(node, now_s) is not (node.slot in self._places):
            self._outdated = True

    def _eligible(self, node: KnownNode, now_s: float) -> bool:
        willing = node.willing or (self._silence and node.silent(now_s))
        return willing and (self._last_resort or node.breaker.admits(now_s))

    # what other workers do

    def loads(self) -> dict[str, Load]:
        """What this worker has on the nodes of the list, by name; those with nothing are left out."""
        return {
            name: Load(node.own_waiting_tokens, node.in_flight)
            for name, node in self._by_name.items()
            if node.in_flight
        }

    def peers(self, name: str, load: Load) -> None:
        """All that the others have on the node, if it is known here."""
        if (node := self._by_name.get(name)) is not None:
            node.peers = load
            self._changed.add(node.slot)

    def peer_sent(self, name: str, uncached_tokens: int, now_s: float) -> int | None:
        """Another worker sent a request there. The node's slot here; None: it is not on the list."""
        node = self._by_name.get(name)
        if node is None:
            return None
        node.assigned.add(uncached_tokens, now_s)
        self._changed.add(node.slot)
        return node.slot

    # what the nodes say

    def reported(self, slot: int, report: wire.Report, now_s: float) -> None:
        """One of our nodes answered."""
        node = self._by_slot[slot]
        before = node.report
        report = _sane(report)
        # younger than the last report, or than when that came: another process
        if before is not None and report.uptime_s < max(before.uptime_s, now_s - node.report_s):
            self._restarted(node, now_s)
        node.report, node.report_s = report, now_s
        node.report_waiting_tokens = node.waiting_tokens
        node.report_peers_tokens = node.peers.waiting_tokens
        node.unseen.reported(now_s)
        node.told_draining = False
        node.problem = ""
        node.slope.observe(report.running, report.tbt_p50_ms / 1000)
        self._hit(node, now_s)

    def answered(self, slot: int, now_s: float, problem: str = "") -> None:
        """It lives, and nothing else is known: a server of others, or there is a `problem` with its report."""
        node = self._by_slot[slot]
        if node.refused and node.report is None and node.health.state is not health.State.UNKNOWN:
            self._restarted(node, now_s)  # nobody listened for a while: it has no other way to say so
        node.report = None
        node.told_draining = False
        node.problem = problem
        self._hit(node, now_s)

    def missed(self, slot: int, now_s: float, problem: str, *, refused: bool = False) -> None:
        """It did not answer in time, or not sensibly; `refused`: nobody listens there."""
        node = self._by_slot[slot]
        node.problem = problem
        node.refused |= refused
        node.health.missed(now_s)
        self._judge(node, now_s)

    def _hit(self, node: KnownNode, now_s: float) -> None:
        node.refused = False
        node.health.hit(now_s)
        self._judge(node, now_s)

    def _restarted(self, node: KnownNode, now_s: float) -> None:
        node.breaker = Breaker()
        node.prefill, node.tail, node.slope = Prefill(), Tail(), Slope()
        node.trust = 1.0
        node.health.restarted(now_s)
        self._forget(node.slot)

    # for people

    def status(self, now_s: float) -> list[NodeStatus]:
        """Every node, in the order of slots; also those that are only finishing."""
        self.snapshot(now_s)  # settles whether circuits count
        return [self._status(self._by_slot[slot], now_s) for slot in sorted(self._by_slot)]

    def _status(self, node: KnownNode, now_s: float) -> NodeStatus:
        seen = self._seen(node, now_s)
        return NodeStatus(
            slot=node.slot,
            name=seen.name,
            url=node.address.url,
            control_url=node.address.control_url,
            weight=seen.weight,
            draining=node.draining,
            removed=node.removed,
            eligible=self._eligible(node, now_s),
            health=node.health.state,
            problem=node.problem,
            circuit=node.breaker.state(now_s),
            index=seen.index,
            in_flight=node.in_flight,
            queued_tokens=seen.queued_tokens,
            warmth=seen.warmth,
            trust=seen.trust,
            prefill_tokens_per_s=seen.prefill_tokens_per_s,
            fixed_s=seen.fixed_s,
            tbt_s=seen.tbt_s,
            report_age_s=now_s - node.report_s if node.report is not None else None,
            report=node.report,
        )


def _place(address: Address) -> tuple[str | None, ...]:
    return address.url, address.control_url, address.events_url, address.replay_url


def _sane(report: wire.Report) -> wire.Report:
    """Without figures that no node can mean; a decision computes with them."""

    def within(value: float, most: float) -> float:
        return min(max(value, 0.0), most) if math.isfinite(value) else 0.0

    def counted(value: int) -> int:
        return min(max(value, 0), 1 << 40)

    return msgspec.structs.replace(
        report,
        queued_tokens=counted(report.queued_tokens),
        running=counted(report.running),
        kv_usage=within(report.kv_usage, 1.0),
        kv_pages_total=counted(report.kv_pages_total),
        page_tokens=counted(report.page_tokens),
        weight=within(report.weight, 1.0),
        prefill_tokens_per_s=within(report.prefill_tokens_per_s, 1e9),
        tbt_p50_ms=within(report.tbt_p50_ms, 1e6),
        tbt_p99_ms=within(report.tbt_p99_ms, 1e6),
        tbt_per_request_ms=within(report.tbt_per_request_ms, 1e6),
        max_in_flight=max(report.max_in_flight, 1),
        ahead=tuple(
            wire.Ahead(counted(one.prompt_tokens), counted(one.queued_tokens))
            for one in report.ahead[:MOST_LENGTHS]
        ),
    )
