"""What the planner sees: an immutable picture of the requests, the memory and the lanes of a node."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from drift_engine import wire
from drift_engine.latency.loads import Load

NOTHING = Load()


class Waiting(msgspec.Struct, frozen=True, gc=False):
    """A request without KV pages: new, or preempted."""

    request_id: str
    tokens: int  # to be in the KV cache before its next token can be drawn
    cached_tokens: int  # of those, reusable from the prefix cache right now
    idle_pages: int  # of the reusable pages, those that count as evictable until the request takes them
    arrival_s: float
    deadline_s: float  # for its first token; of a resumed request its arrival
    priority: int = 0
    marks: tuple[int, ...] = ()  # of its prompt, by `sharing.marks`


class Running(msgspec.Struct, frozen=True, gc=False):
    """A request with KV pages. One remaining token is a decode row, more are a prefill."""

    request_id: str
    computed_tokens: int
    remaining_tokens: int
    arrival_s: float
    tbt_target_s: float
    due_s: float  # when its next token is, by `slack.due_s`
    priority: int = 0
    blind_tokens: int = 1  # that it may draw before anybody must look at them
    deadline_s: float = 0.0  # for its first token, which says nothing of those behind it


@dataclass(frozen=True, slots=True)
class Memory:
    """The KV cache's pages. `evictable` pages hold cached prefixes that nobody uses."""

    page_tokens: int
    pages_total: int
    pages_free: int
    pages_evictable: int

    def pages(self, tokens: int) -> int:
        """Pages that hold `tokens` tokens."""
        return -(-tokens // self.page_tokens)

    def growth(self, computed_tokens: int, new_tokens: int) -> int:
        """Pages to add so that `new_tokens` more fit behind `computed_tokens`."""
        return self.pages(computed_tokens + new_tokens) - self.pages(computed_tokens)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that the node was started with."""

    max_running: int
    chunk_tokens: int | None  # a fixed budget of a fused step; None: from the slack
    max_step_tokens: int  # what the executor's buffers hold
    layers: int  # of the model
    lookahead_steps: int = 1  # of a decode pass
    min_dwell_s: float = 0.0  # of a split, before decode gets fewer SMs


@dataclass(frozen=True, slots=True)
class Flight:
    """A pass that a lane computes now, decode rows among its rows or not."""

    load: Load
    split: wire.Split | None  # whose decode lane; None: the whole device
    ends_s: float  # as predicted when it was launched; in the past where it takes longer
    tbt_target_s: float  # the tightest of its decode rows


@dataclass(frozen=True, slots=True)
class Cut:
    """A prefill that is launched by layers."""

    load: Load
    deadline_s: float  # the earliest of its requests
    firm_s: float  # from when on nobody goes before it any more: the earliest of its requests
    split: wire.Split | None  # whose prefill lane got its last layers; None: the whole device
    layers: int
    launched: int
    done: int
    rest: Load = NOTHING  # of the same prompts, behind this pass


@dataclass(frozen=True, slots=True)
class Lanes:
    """What the device is made of and what it does. Without `splits` it has one lane."""

    sms: int
    splits: tuple[wire.Split, ...] = ()  # that the mode may use, fewest decode SMs first
    flight: Flight | None = None
    cuts: tuple[Cut, ...] = ()  # the last one gets layers, each of the others was interrupted by the next
    split: wire.Split | None = None  # the last one used
    split_since_s: float = 0.0  # when it was taken
    mode: wire.Mode | None = None  # the last one used where prefill and decode met


Table = tuple[tuple[int, wire.Split], ...]
"""Splits by the number of decode rows from which on they are used, ascending."""


@dataclass(frozen=True, slots=True)
class State:
    """Waiting requests in the order in which to serve them, running ones that no lane works on by admission."""

    waiting: tuple[Waiting, ...]
    running: tuple[Running, ...]
    memory: Memory
    limits: Limits
    lanes: Lanes
    in_flight: int = 0  # further running requests: those that lanes work on
    computing: tuple[tuple[int, ...], ...] = ()  # marks of the prompts that are being prefilled
    pressed: bool = False  # the node is nearly full, by `pressure.turned`
    table: Table = ()  # of the mode batch-table
