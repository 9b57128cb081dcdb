"""What a routing decision is made from and what it says: immutable, so that it can be repeated and explained.

Structs of msgspec: one is made for every request and every change of a node, in a sixth of a frozen dataclass's time.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec

UNBOUNDED = 1 << 30
"""Requests on a node that did not say how many it takes."""


class Policy(enum.StrEnum):
    CACHE_AWARE = "cache-aware"  # predicted time, with what the node holds of the prompt taken off
    PREFIX_HASH = "prefix-hash"  # consistent hashing of the prompt's beginning, bounded on queued seconds
    LEAST_LOAD = "least-load"
    ROUND_ROBIN = "round-robin"


class IndexState(enum.StrEnum):
    """How well a node's cache is known."""

    EXACT = "exact"  # its events were followed without a gap
    DEGRADED = "degraded"  # a gap is being mended, or its answers contradict its events
    FALLBACK = "fallback"  # it sends none: what was sent to it is all that is known


class Reason(enum.StrEnum):
    """Why a node was chosen, or none."""

    STICKY = "sticky"  # it holds nearly the most of the prompt and is quick enough
    HEADROOM = "headroom"  # it has the most room under the promise
    WEIGHT = "weight"  # as good as others: drawn by the operator's weights
    SESSION = "session"  # its session is there
    FALLBACK = "fallback"  # nothing is known of the caches: by the hash of the prompt's beginning
    HASH = "hash"  # where the hash of the prompt's beginning belongs
    TURN = "turn"  # round robin
    LOAD = "load"  # least load
    OVERLOADED = "overloaded"  # every node would miss the promise: wait
    UNAVAILABLE = "unavailable"  # there is no node


class Node(msgspec.Struct, frozen=True, gc=False):
    """One node that may be sent requests. Draining, fenced and unhealthy ones are not among the policy's nodes."""

    name: str
    slot: int
    """Its bit in the index's masks, its own as long as it is known."""
    weight: float = 1.0
    """The operator's wish, 0 to 1."""
    warmth: float = 1.0
    """Of a node that was just added: rises from near 0 to 1, and its share of new work with it."""
    prefill_tokens_per_s: float = 0.0
    """At its present split; 0: unknown."""
    timed: bool = True
    """That rate was measured. Else it is at least so much: no reason to keep a request waiting."""
    queued_tokens: int = 0
    """Uncached prompt tokens that it has to compute: reported, and sent since."""
    ahead: tuple[tuple[int, int], ...] = ()
    """Of those, what goes before a new prompt of up to so many uncached tokens, the shortest first. A longer one
    waits for all of them."""
    in_flight: int = 0
    """Requests of ours that have no last byte yet."""
    max_in_flight: int = UNBOUNDED
    """The most that it takes."""
    fixed_s: float = 0.0
    """From sending a request to its first token, less what the prefill takes."""
    tbt_s: float = 0.0
    """Between two tokens now (its P99); 0: unknown."""
    tbt_per_request_s: float = 0.0
    """What one more request adds to it."""
    kv_usage: float = 0.0
    """Share of its KV pages that requests hold."""
    kv_tokens: int = 0
    """What its KV cache holds in all; 0: unknown."""
    assigned_tokens: float = 0.0
    """Uncached prompt tokens sent to it lately, an old one counting less (`policies.fading`). Balances nodes between
    which nothing else decides: whoever answers at once never has a queue to see."""
    index: IndexState = IndexState.FALLBACK
    trust: float = 1.0
    """Share of what the index promised of its cache that its answers bore out."""


class Ask(msgspec.Struct, frozen=True):
    """One request. `matched_tokens` has the nodes' slots as keys; those that hold nothing of it are left out."""

    tokens: int
    """Of the prompt; estimated where nobody counted them."""
    matched_tokens: Mapping[int, int]
    key: int
    """Requests with the same key should meet: a hash of the prompt's beginning, or of it up to where it differs from
    all that was seen."""
    ttft_s: float
    ttft_per_token_s: float
    """On top of `ttft_s`, for every uncached token."""
    tbt_s: float
    session_slot: int | None = None
    """Where its session was served last, if that is remembered."""
    excluded: frozenset[int] = frozenset()
    """Slots of nodes that failed it already."""
    begun: bool = False
    """Its client has the beginning of the answer, so that it can't wait any more, whatever of the promise is left."""


class Score(msgspec.Struct, frozen=True, gc=False):
    """How one node looked to one request. Times in seconds."""

    name: str
    matched_tokens: int
    uncached_tokens: int
    ttft_s: float
    """Predicted."""
    ttft_budget_s: float
    tbt_s: float
    headroom: float
    """Share of the TTFT budget that is left; negative: that, or the TBT target, would be missed."""
    cost_s: float
    """What it was compared by (`policies.predicting`)."""


class Decision(msgspec.Struct, frozen=True):
    """`slot` None: no node now. `scores` is filled where the decision has to be explained."""

    slot: int | None
    reason: Reason
    matched_tokens: int = 0
    uncached_tokens: int = 0
    ttft_s: float = 0.0
    """Predicted, on the node that was chosen; of OVERLOADED on the best one: when room is to be expected."""
    scores: tuple[Score, ...] = ()
