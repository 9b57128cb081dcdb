"""What a soak's log says: fault by fault, requests, and memory. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import msgspec
import numpy as np
from benchmarks.soak.looks import Injected, Line, Look, Memory, Pressure, Request

TRUTH_S = 15.0
"""So long the status may say what is no longer so."""
SETTLED_S = 300.0
"""Of a container's life that is not counted in the slope of its memory: caches fill."""
LONG_S = 300.0
"""A life is judged if so much of it is left."""


class Episode(msgspec.Struct, frozen=True):
    """A fault and what followed, up to the next one."""

    at_s: float
    fault: str
    victim: str
    held_s: float
    failed: str
    told_s: float | None
    """Until the status said that something was not well; None: it never did."""
    untrue_s: float
    """The longest time on end in which the status said what was not so."""
    unread_s: float
    """The longest time on end in which nobody could read the status."""
    well_s: float | None
    """Until all was well again and the status said so; None: not before the next fault."""
    requests: int
    troubled: int
    """Requests that needed another attempt."""
    lost: int
    wrong: int
    cpu_pressure: float | None
    """Mean share of the time in which something on the machine waited for a processor."""


class Slope(msgspec.Struct, frozen=True):
    """Of the memory of a component's containers, over those lives that were long enough."""

    component: str
    containers: int
    """That lived."""
    judged: int
    judged_s: float
    """Seconds of life in all."""
    first_mib: float
    """Median over containers of the first sample that is judged."""
    most_mib: float
    """At any time."""
    mib_per_hour: float | None
    """Least squares, each life around its own mean."""
    error_mib_per_hour: float | None
    """Standard error."""


class Summary(msgspec.Struct, frozen=True):
    seconds: float
    requests: int
    lost: int
    wrong: int
    troubled: int
    """Requests of which an attempt failed."""
    troubles: dict[str, int]
    """Attempts that failed, by kind."""
    ttft_p50_s: float
    ttft_p99_s: float
    longest_s: float
    cpu_pressure: float | None
    """As in `Episode`."""
    untrue_s: float
    untrue_episodes: int
    """In which the status was untrue for longer than TRUTH_S."""
    episodes: list[Episode]
    memory: list[Slope]


def summarize(lines: Sequence[Line], nodes: int, routers: int, end_s: float) -> Summary:
    looks = [line for line in lines if isinstance(line, Look)]
    requests = [line for line in lines if isinstance(line, Request)]
    faults = [line for line in lines if isinstance(line, Injected)]
    ends = [*(fault.at_s for fault in faults[1:]), end_s]
    pressures = [line for line in lines if isinstance(line, Pressure)]
    episodes = [
        _episode(fault, until_s, looks, requests, pressures, nodes, routers)
        for fault, until_s in zip(faults, ends, strict=True)
    ]
    first = sorted(request.ttft_s for request in requests if request.ttft_s is not None)
    return Summary(
        seconds=end_s,
        requests=len(requests),
        lost=sum(request.lost for request in requests),
        wrong=sum(request.wrong for request in requests),
        troubled=sum(bool(request.troubles) for request in requests),
        troubles=counted(trouble for request in requests for trouble in request.troubles),
        ttft_p50_s=round(float(np.quantile(first, 0.5)), 3) if first else 0.0,
        ttft_p99_s=round(float(np.quantile(first, 0.99)), 3) if first else 0.0,
        longest_s=round(max((request.seconds for request in requests), default=0.0), 1),
        cpu_pressure=_mean([each.cpu for each in pressures]),
        untrue_s=max((episode.untrue_s for episode in episodes), default=0.0),
        untrue_episodes=sum(episode.untrue_s > TRUTH_S for episode in episodes),
        episodes=episodes,
        memory=slopes([line for line in lines if isinstance(line, Memory)]),
    )


def counted(troubles: Iterable[str]) -> dict[str, int]:
    """By their first words, most frequent first."""
    kinds: dict[str, int] = {}
    for trouble in troubles:
        kind = " ".join(trouble.split()[:2]).rstrip(":")
        kinds[kind] = kinds.get(kind, 0) + 1
    return dict(sorted(kinds.items(), key=lambda item: -item[1]))


def _episode(
    fault: Injected,
    until_s: float,
    looks: Sequence[Look],
    requests: Sequence[Request],
    pressures: Sequence[Pressure],
    nodes: int,
    routers: int,
) -> Episode:
    spans = list(spanned(looks, fault.at_s, until_s))
    ill = next((begin_s for begin_s, _, look in spans if _tells(look, nodes, routers)), None)
    disturbed = next((begin_s for begin_s, _, look in spans if not look.well(nodes, routers)), None)
    asked = [request for request in requests if fault.at_s <= request.at_s + request.seconds < until_s]
    return Episode(
        at_s=round(fault.at_s, 1),
        fault=fault.name,
        victim=fault.victim,
        held_s=round(fault.until_s - fault.at_s, 1),
        failed=fault.failed,
        told_s=None if ill is None else round(ill - fault.at_s, 1),
        untrue_s=longest((begin, end) for begin, end, look in spans if not look.true),
        unread_s=longest((begin, end) for begin, end, look in spans if look.claim is None),
        well_s=_well_s(spans, fault, disturbed, nodes, routers),
        requests=len(asked),
        troubled=sum(bool(request.troubles) for request in asked),
        lost=sum(request.lost for request in asked),
        wrong=sum(request.wrong for request in asked),
        cpu_pressure=_mean([each.cpu for each in pressures if fault.at_s <= each.at_s < until_s]),
    )


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 2) if values else None


def _tells(look: Look, nodes: int, routers: int) -> bool:
    claim = look.claim
    return claim is not None and (
        claim.nodes < nodes
        or claim.routers < routers
        or claim.says("Ready", "False")
        or claim.says("Degraded", "True")
    )


def _well_s(
    spans: Sequence[tuple[float, float, Look]],
    fault: Injected,
    disturbed: float | None,
    nodes: int,
    routers: int,
) -> float | None:
    """After the last time that something was not well."""
    if disturbed is None:
        return 0.0
    last = max(end for _, end, look in spans if not look.well(nodes, routers))
    return None if last >= spans[-1][1] else round(last - fault.at_s, 1)


def spanned(looks: Sequence[Look], from_s: float, until_s: float) -> Iterator[tuple[float, float, Look]]:
    """Each look with the time for which it held within these bounds."""
    ends = [*(look.at_s for look in looks[1:]), until_s]
    for look, end_s in zip(looks, ends, strict=True):
        begin_s, end_s = max(look.at_s, from_s), min(end_s, until_s)
        if begin_s < end_s:
            yield begin_s, end_s, look


def longest(spans: Iterable[tuple[float, float]]) -> float:
    """Of spans in order; those that touch are one."""
    most = begin_s = end_s = 0.0
    for begin, end in spans:
        if begin > end_s:
            begin_s = begin
        end_s = end
        most = max(most, end_s - begin_s)
    return round(most, 1)


def slopes(samples: Sequence[Memory]) -> list[Slope]:
    """One for each component."""
    found = []
    by_component = itertools.groupby(sorted(samples, key=lambda each: each.component), lambda e: e.component)
    for component, of_it in by_component:
        lives: dict[str, list[Memory]] = {}
        for sample in of_it:
            lives.setdefault(sample.container, []).append(sample)
        found.append(_slope(component, list(lives.values())))
    return found


def _slope(component: str, lives: Sequence[Sequence[Memory]]) -> Slope:
    judged = []
    for life in lives:
        rest = [sample for sample in life if sample.at_s - life[0].at_s >= SETTLED_S]
        if rest and rest[-1].at_s - rest[0].at_s >= LONG_S:
            judged.append(rest)
    hours, mib = [], []
    for rest in judged:
        at = np.array([sample.at_s / 3600 for sample in rest])
        held = np.array([sample.rss_bytes / 2**20 for sample in rest])
        hours.append(at - at.mean())
        mib.append(held - held.mean())
    slope = error = None
    if judged:
        x, y = np.concatenate(hours), np.concatenate(mib)
        slope = float(x @ y / (x @ x))
        free = max(1, len(x) - len(judged) - 1)
        error = float(np.sqrt(((y - slope * x) ** 2).sum() / free / (x @ x)))
    return Slope(
        component=component,
        containers=len(lives),
        judged=len(judged),
        judged_s=round(sum(rest[-1].at_s - rest[0].at_s for rest in judged), 0),
        first_mib=round(float(np.median([rest[0].rss_bytes / 2**20 for rest in judged])), 1)
        if judged
        else 0.0,
        most_mib=round(max(sample.rss_bytes for life in lives for sample in life) / 2**20, 1),
        mib_per_hour=None if slope is None else round(slope, 2),
        error_mib_per_hour=None if error is None else round(error, 2),
    )
