"""All that is known of one node: what the list says of it, what it reports, and what its requests have shown.

The registry keeps the books; here they are read.
"""

from __future__ import annotations

import math

from drift_engine import wire
from drift_router import snapshots
from drift_router.nodes import health
from drift_router.nodes.addresses import Address
from drift_router.nodes.breaker import Breaker
from drift_router.nodes.figures import Assigned, Prefill, Slope, Tail, Unseen
from drift_router.nodes.health import Health
from drift_router.nodes.peers import NOTHING

LOST_S = 5.0
"""Of silence, of streams and reports alike, until the streams of a node that can't be reached go on elsewhere. A busy
node answers within 1 s, and who waits for tokens gives up within 60 s. Estimate."""

REMOVED_S = 15.0
"""The same of a node that left the list with requests: it may prefill a long prompt before it goes. Estimate."""


class KnownNode:
    __slots__ = (
        "address",
        "assigned",
        "breaker",
        "health",
        "in_flight",
        "own_waiting_tokens",
        "peers",
        "prefill",
        "problem",
        "refused",
        "removed",
        "report",
        "report_peers_tokens",
        "report_s",
        "report_waiting_tokens",
        "slope",
        "slot",
        "tail",
        "told_draining",
        "trust",
        "unseen",
    )

    def __init__(self, address: Address, slot: int, *, warm: bool) -> None:
        self.address = address
        self.slot = slot
        self.removed = False
        self.health = Health(warm=warm)
        self.breaker = Breaker()
        self.problem = ""
        self.refused = False  # nobody listened where it should
        self.told_draining = False  # by an answer, since the last report
        self.report: wire.Report | None = None
        self.report_s = -math.inf
        # [sent, first byte)   own_waiting_tokens
        # [sent, last byte]    in_flight
        # report_waiting_tokens is what waited, as far as we knew, when the last report came
        self.in_flight = 0
        self.own_waiting_tokens = 0
        self.report_waiting_tokens = 0
        self.report_peers_tokens = 0  # of that, others'
        self.unseen = Unseen()
        self.peers = NOTHING
        self.assigned = Assigned()
        self.prefill = Prefill()
        self.tail = Tail()
        self.slope = Slope()
        self.trust = 1.0

    def fresh(self, now_s: float, stale_s: float) -> wire.Report | None:
        return self.report if now_s - self.report_s <= stale_s else None

    @property
    def draining(self) -> bool:
        told = self.report is not None and self.report.draining
        return self.address.draining or self.told_draining or told

    @property
    def weight(self) -> float:
        """The list's, times what the operator told the node itself; an old word of his still counts."""
        return self.address.weight * (self.report.weight if self.report is not None else 1.0)

    @property
    def willing(self) -> bool:
        """It may be sent requests, as far as it can tell itself."""
        return self.health.state is health.State.HEALTHY and self._open

    def silent(self, now_s: float) -> bool:
        """It was, and stopped answering a moment ago, though somebody may still listen there."""
        unhealthy = self.health.state is health.State.UNHEALTHY
        return unhealthy and self._open and not self.refused and self.health.lost_s(now_s) < LOST_S

    def lost(self, sent_s: float, now_s: float) -> bool:
        """Nothing is to be expected any more of a request that was sent then."""
        if self.removed:
            return min(self.health.silent_s(now_s), now_s - sent_s) >= REMOVED_S
        return self.health.lost_s(now_s) >= LOST_S

    @property
    def _open(self) -> bool:
        return (
            not self.removed
            and not self.draining
            and (self.report is None or self.report.ready)
            and self.weight > 0
        )

    @property
    def waiting_tokens(self) -> int:
        """Of this router, its other workers included."""
        return self.own_waiting_tokens + self.peers.waiting_tokens

    @property
    def unseen_tokens(self) -> int:
        """Sent so lately that the last report may not count them."""
        return self.unseen.tokens + max(0, self.peers.waiting_tokens - self.report_peers_tokens)

    def queued_tokens(self, fresh: wire.Report | None) -> int:
        """What the node said, and what happened since; never less than what waits there for sure: our own."""
        waiting = self.waiting_tokens
        if fresh is None:
            return waiting
        return max(waiting, fresh.queued_tokens + waiting - self.report_waiting_tokens)

    def ahead(self, fresh: wire.Report | None) -> tuple[tuple[int, int], ...]:
        """What the node said goes before a new prompt, by length, and all that was sent so lately that it may not
        know; never more than what is queued."""
        if fresh is None or not fresh.ahead:
            return ()
        unseen_tokens, most = self.unseen_tokens, self.queued_tokens(fresh)
        return tuple(
            [(one.prompt_tokens, min(most, one.queued_tokens + unseen_tokens)) for one in fresh.ahead]
        )

    def prefill_tokens_per_s(self, fresh: wire.Report | None) -> float:
        """As reported; else as observed; else as reported once; else what it is at least."""
        if fresh is not None and fresh.prefill_tokens_per_s:
            return fresh.prefill_tokens_per_s
        last = self.report.prefill_tokens_per_s if self.report is not None else 0.0
        return self.prefill.tokens_per_s or last or self.prefill.least_tokens_per_s

    @property
    def timed(self) -> bool:
        told = self.report is not None and self.report.prefill_tokens_per_s > 0
        return told or self.prefill.tokens_per_s > 0

    def tbt_s(self, fresh: wire.Report | None) -> float:
        return fresh.tbt_p99_ms / 1000 if fresh is not None and fresh.tbt_p99_ms else self.tail.value_s

    def tbt_per_request_s(self, fresh: wire.Report | None) -> float:
        """By the node's own model; else what was seen."""
        return (
            fresh.tbt_per_request_ms / 1000
            if fresh is not None and fresh.tbt_per_request_ms
            else self.slope.value
        )

    def seen(
        self, index: snapshots.IndexState, warmest: float, now_s: float, stale_s: float
    ) -> snapshots.Node:
        fresh = self.fresh(now_s, stale_s)
        return snapshots.Node(
            name=self.address.name,
            slot=self.slot,
            weight=self.weight,
            warmth=min(1.0, self.health.warmth(now_s) / warmest),
            prefill_tokens_per_s=self.prefill_tokens_per_s(fresh),
            timed=self.timed,
            queued_tokens=self.queued_tokens(fresh),
            ahead=self.ahead(fresh),
            in_flight=self.in_flight + self.peers.in_flight,
            max_in_flight=self.report.max_in_flight if self.report is not None else snapshots.UNBOUNDED,
            fixed_s=self.prefill.fixed_s,
            tbt_s=self.tbt_s(fresh),
            tbt_per_request_s=self.tbt_per_request_s(fresh),
            kv_usage=fresh.kv_usage if fresh is not None else 0.0,
            kv_tokens=self.report.kv_pages_total * self.report.page_tokens if self.report is not None else 0,
            index=index,
            trust=self.trust,
            assigned_tokens=self.assigned.at(now_s),
        )
