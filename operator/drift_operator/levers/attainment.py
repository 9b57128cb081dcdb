"""Is the promise kept? The routers' totals become increments, and these the kept share of each promise.

In: totals of routers that come, go and start again (their counts then begin at zero). Out: what was counted over the
service's window, over a minute (fast) and ten (slow), and over the last half minute for the demand. A router that is
seen for the first time is counted from then on, unless it began after the last look. A router that is unknown for a
while is caught up with.

    burn = (1 - attainment) / (1 - target)        1 uses the allowance of missed targets up exactly

after chapter 5 of the Site Reliability Workbook, whose long windows (1 h, 6 h) are for paging people. Here a minute
and ten, because nodes come within minutes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from drift_operator.driftservice import Slo
from drift_operator.fields import seconds
from drift_operator.levers.observations import Router
from drift_router.counters import Histogram
from drift_router.pictures import Totals

FAST_S, SLOW_S = 60.0, 600.0
DEMAND_S = 30.0
"""Over which arrivals are counted: 10 requests a second are known to 6 %."""

LONGEST_GAP_S = 15.0
"""What a router counted while it was not heard for longer came over all that time: it is no demand of now."""

BUCKETS = 60
"""Of each window: it is known to a sixtieth."""

SIGNIFICANT = 3
"""Missed targets below which nothing is said to burn: fewer happen by chance in any small service."""


class Judged(NamedTuple):
    kept: int = 0
    missed: int = 0

    @property
    def total(self) -> int:
        return self.kept + self.missed

    @property
    def attainment(self) -> float | None:
        """None where nothing was judged."""
        return self.kept / self.total if self.total else None

    def burn(self, target: float) -> float | None:
        return self.missed / self.total / (1 - target) if self.total else None

    def burns(self, target: float) -> bool:
        """More was missed than the target allows, and by two standard deviations of what it allows: not by chance."""
        allowed = (1 - target) * self.total
        return self.missed >= SIGNIFICANT and self.missed > allowed + 2 * math.sqrt(allowed)

    def calm(self, target: float) -> bool:
        """At most half of what is allowed was missed."""
        return self.missed <= (1 - target) * self.total / 2


NOBODY = Judged()


class Length(NamedTuple):
    """Requests of one class of uncached prompt lengths."""

    requests: int = 0
    uncached_tokens: int = 0
    kept: int = 0
    missed: int = 0

    @property
    def ttft(self) -> Judged:
        return Judged(self.kept, self.missed)


Counts = Mapping[float, int]
"""Of observations by the upper edge of their bucket; infinity: above all edges."""


@dataclass(frozen=True, slots=True)
class Sums:
    """What was counted over some time. Classes and buckets are by their upper edges, without empty ones."""

    requests: int = 0
    overloaded: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    ttft: Judged = NOBODY
    tbt: Judged = NOBODY
    lengths: Mapping[float, Length] = field(default_factory=dict)
    ttft_s: Counts = field(default_factory=dict)
    tbt_s: Counts = field(default_factory=dict)


NOTHING = Sums()


def added(parts: Iterable[Sums]) -> Sums:
    """Their sum."""
    requests = overloaded = failed = prompt = cached = output = kept = missed = tbt_kept = tbt_missed = 0
    lengths: dict[float, list[int]] = {}
    ttft_s: dict[float, int] = {}
    tbt_s: dict[float, int] = {}
    for part in parts:
        requests += part.requests
        overloaded += part.overloaded
        failed += part.failed
        prompt += part.prompt_tokens
        cached += part.cached_tokens
        output += part.output_tokens
        kept += part.ttft.kept
        missed += part.ttft.missed
        tbt_kept += part.tbt.kept
        tbt_missed += part.tbt.missed
        for edge, length in part.lengths.items():
            lengths[edge] = [a + b for a, b in zip(lengths.get(edge, (0, 0, 0, 0)), length, strict=True)]
        for counts, more in ((ttft_s, part.ttft_s), (tbt_s, part.tbt_s)):
            for edge, count in more.items():
                counts[edge] = counts.get(edge, 0) + count
    return Sums(
        requests,
        overloaded,
        failed,
        prompt,
        cached,
        output,
        Judged(kept, missed),
        Judged(tbt_kept, tbt_missed),
        {edge: Length(*counts) for edge, counts in lengths.items()},
        ttft_s,
        tbt_s,
    )


@dataclass(frozen=True, slots=True)
class Track:
    """What was counted over the last `horizon_s`, in at most BUCKETS + 1 buckets of equal time."""

    horizon_s: float
    buckets: tuple[tuple[int, Sums], ...] = ()

    def add(self, sums: Sums, now_s: float) -> Track:
        number = self._number(now_s)
        kept = self.buckets
        if kept and kept[0][0] <= number - BUCKETS:
            kept = tuple(bucket for bucket in kept if bucket[0] > number - BUCKETS)
        if sums is not NOTHING:
            if kept and kept[-1][0] >= number:
                kept, sums = kept[:-1], added((kept[-1][1], sums))
            kept = (*kept, (number, sums))
        return self if kept is self.buckets else replace(self, buckets=kept)

    def since(self, then_s: float) -> Sums:
        """Of the buckets that began at `then_s` or later."""
        return added(sums for number, sums in self.buckets if number * self.horizon_s >= then_s * BUCKETS)

    @property
    def all(self) -> Sums:
        return added(sums for _, sums in self.buckets)

    def _number(self, at_s: float) -> int:
        return math.floor(at_s * BUCKETS / self.horizon_s)


class Heard(NamedTuple):
    """A router's last totals, and when they came."""

    totals: Totals
    at_s: float


@dataclass(frozen=True, slots=True)
class Ledger:
    """Bounded: four windows of BUCKETS buckets, and the last totals of the routers that there are."""

    promise: Slo
    window: Track
    fast: Track
    slow: Track
    demand: Track
    last: Mapping[str, Heard]
    began_s: float
    """Since when the demand is counted."""
    at_s: float | None = None
    """Of the last look."""

    @classmethod
    def empty(cls, promise: Slo, now_s: float) -> Ledger:
        window_s = seconds(promise.window)
        return cls(promise, Track(window_s), Track(FAST_S), Track(SLOW_S), Track(DEMAND_S), {}, now_s)

    def promised(self, promise: Slo) -> Ledger:
        """For this promise: what was judged by another one says nothing of it."""
        if promise == self.promise:
            return self
        fresh = Ledger.empty(promise, self.began_s)
        return replace(fresh, demand=self.demand, last=self.last, at_s=self.at_s)

    def observe(self, routers: Iterable[Router], now_s: float) -> Ledger:
        """With what the routers counted since the last time."""
        routers = tuple(routers)
        grown, demand = [], []
        for router in routers:
            heard = self.last.get(router.name)
            sums = _grown(router.totals, heard, None if self.at_s is None else now_s - self.at_s)
            if sums is not NOTHING:
                slim = replace(sums, ttft_s={}, tbt_s={})
                grown.append((sums, slim))
                if heard is None or now_s - heard.at_s <= LONGEST_GAP_S:
                    demand.append(slim)
        whole = added(sums for sums, _ in grown) if grown else NOTHING
        slim = added(slim for _, slim in grown) if grown else NOTHING
        last = {r.name: Heard(r.totals, now_s) for r in routers if r.totals is not None}
        unheard = {r.name: self.last[r.name] for r in routers if r.totals is None and r.name in self.last}
        return replace(
            self,
            window=self.window.add(whole, now_s),
            fast=self.fast.add(slim, now_s),
            slow=self.slow.add(slim, now_s),
            demand=self.demand.add(added(demand) if demand else NOTHING, now_s),
            last=last | unheard,
            at_s=now_s,
        )

    def counted_s(self, now_s: float) -> float:
        """Over which the demand was counted."""
        return min(DEMAND_S, max(0.0, now_s - self.began_s))


def quantile_s(counts: Counts, share: float, edges: Sequence[float]) -> float | None:
    """Interpolated within its bucket, the last finite edge where it lies above all; None where nothing is. `edges`
    are those that routers have anyway: buckets without observations are not among the counts."""
    left = share * sum(counts.values())
    low = 0.0
    for edge in sorted({*counts, *edges}):
        count = counts.get(edge, 0)
        high = edge if math.isfinite(edge) else low
        if count and left <= count:
            return low + (high - low) * left / count
        left -= count
        low = high
    return None


def _grown(now: Totals | None, heard: Heard | None, since_s: float | None) -> Sums:
    """`since_s`: how long ago the last look was; None: there was none."""
    if now is None:
        return NOTHING
    if heard is None:
        return _sums(now, None) if since_s is not None and now.uptime_s <= since_s else NOTHING
    return _sums(now, None if _began_anew(now, heard.totals) else heard.totals)


def _began_anew(now: Totals, before: Totals) -> bool:
    """A counter never falls, and a promise has its own edge."""
    return (
        now.uptime_s < before.uptime_s
        or now.ttft.edges != before.ttft.edges
        or now.tbt.edges != before.tbt.edges
        or [one.up_to_tokens for one in now.classes] != [one.up_to_tokens for one in before.classes]
        or any(map(int.__lt__, _counters(now), _counters(before)))
    )


def _counters(totals: Totals) -> Iterable[int]:
    yield from (totals.requests, totals.overloaded, totals.failed)
    yield from (totals.prompt_tokens, totals.cached_tokens, totals.output_tokens)
    yield from (totals.ttft_kept, totals.ttft_missed, totals.tbt_kept, totals.tbt_missed)
    yield from totals.ttft.counts
    yield from totals.tbt.counts
    for one in totals.classes:
        yield from (one.requests, one.uncached_tokens, one.ttft_kept, one.ttft_missed)


def _sums(now: Totals, before: Totals | None) -> Sums:
    counted = _counters(before) if before is not None else itertools.repeat(0)
    if not any(map(int.__sub__, _counters(now), counted)):
        return NOTHING

    def grown(name: str) -> int:
        return int(getattr(now, name)) - (int(getattr(before, name)) if before is not None else 0)

    lengths = {}
    for index, one in enumerate(now.classes):
        old = before.classes[index] if before is not None else None
        length = Length(
            one.requests - (old.requests if old else 0),
            one.uncached_tokens - (old.uncached_tokens if old else 0),
            one.ttft_kept - (old.ttft_kept if old else 0),
            one.ttft_missed - (old.ttft_missed if old else 0),
        )
        if length != Length():
            lengths[math.inf if one.up_to_tokens is None else float(one.up_to_tokens)] = length
    return Sums(
        grown("requests"),
        grown("overloaded"),
        grown("failed"),
        grown("prompt_tokens"),
        grown("cached_tokens"),
        grown("output_tokens"),
        Judged(grown("ttft_kept"), grown("ttft_missed")),
        Judged(grown("tbt_kept"), grown("tbt_missed")),
        lengths,
        _histogram(now.ttft, before.ttft if before is not None else None),
        _histogram(now.tbt, before.tbt if before is not None else None),
    )


def _histogram(now: Histogram, before: Histogram | None) -> Counts:
    old = before.counts if before is not None else [0] * len(now.counts)
    edges = (*now.edges, math.inf)
    return {
        edge: count - less for edge, count, less in zip(edges, now.counts, old, strict=True) if count > less
    }
