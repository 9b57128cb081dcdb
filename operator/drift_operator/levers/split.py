"""The first lever: between how many decode SMs each node's planner may move.

The planner splits its device every 10 to 100 ms by what it predicts. What it cannot see is whether the promise is
kept in the end. In: the service's kept and missed targets since the last change, and the nodes' reports. Out: a floor
and a ceiling of decode SMs for each node, among its legal splits and within the spec's bounds:

    TBT burns, TTFT does not     the floor goes up by one legal split
    TTFT burns, TBT does not     the floor that was raised comes down by one, else the ceiling; but where prompts wait
                                 for a row of decode, what was narrowed is widened by one: fewer decode SMs would
                                 let them wait for longer
    both, TBT far more           as if TTFT did not; also where prompts wait for a row of decode: rows that end sooner
                                 help both
    both or neither, for RELAX_S     what was narrowed is widened by one: it helps nobody

Each judges only what was counted since the last change, so a step is not taken twice for the same misses.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from drift_engine import wire
from drift_operator.driftservice import DecodeSms, DriftService, Slo
from drift_operator.fields import seconds
from drift_operator.levers import capacity
from drift_operator.levers.attainment import Judged
from drift_operator.levers.decisions import Decision
from drift_operator.levers.observations import Node

RELAX_S = 60.0
"""Between two steps back at first: as long as the fast window, so that each has shown what it does. Doubles while
steps have to be taken back."""

LONGEST_RELAX_S = 960.0

LOPSIDED = 2.0
"""Times as much of its allowance that TBT uses up when decode gets a step though TTFT burns, too. Not the other way
round: in an overload first tokens are late at any split, and tokens need not be as well. Estimate."""

WAITING_SHARE = 0.5
"""Of its target that the prompts before it take at a node whose first tokens come late. Estimate."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of one node, in decode SMs; `legal` are those that spec and device allow."""

    floor: int
    ceiling: int
    legal: tuple[int, ...]

    @classmethod
    def widest(cls, legal: tuple[int, ...]) -> Bounds:
        return cls(legal[0], legal[-1], legal)

    def __str__(self) -> str:
        return str(self.floor) if self.floor == self.ceiling else f"{self.floor}-{self.ceiling}"

    def within(self, legal: tuple[int, ...]) -> Bounds:
        """As near as these allow. A bound that was the spec's stays the spec's."""
        if legal == self.legal:
            return self
        floor = legal[0] if self.floor == self.legal[0] else nearest(legal, self.floor)
        ceiling = legal[-1] if self.ceiling == self.legal[-1] else nearest(legal, self.ceiling)
        return Bounds(floor, max(floor, ceiling), legal)

    def more_decode(self) -> Bounds:
        floor = self._step(self.floor, +1)
        return replace(self, floor=floor, ceiling=max(self.ceiling, floor))

    def more_prefill(self) -> Bounds:
        if self.floor > self.legal[0]:
            return replace(self, floor=self._step(self.floor, -1))
        return replace(self, ceiling=max(self.floor, self._step(self.ceiling, -1)))

    def wider(self) -> Bounds:
        return replace(self, floor=self._step(self.floor, -1), ceiling=self._step(self.ceiling, +1))

    def _step(self, sms: int, by: int) -> int:
        index = self.legal.index(sms) + by
        return self.legal[min(max(index, 0), len(self.legal) - 1)]


@dataclass(frozen=True, slots=True)
class SplitState:
    nodes: Mapping[str, Bounds] = field(default_factory=dict)
    """Of those whose device is split."""
    looked_s: float = -math.inf
    changed_s: float = -math.inf
    """At first, when the first bounds were taken over."""
    direction: int | None = None
    """Of the last change: 1 to decode, -1 to prefill, 0 back. None: there was none."""
    relax_s: float = RELAX_S


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was counted of each promise since the last change; of prompts only those that could be in time."""

    ttft: Judged
    tbt: Judged


def allowed(legal: Sequence[int], spec: DecodeSms | None) -> tuple[int, ...]:
    """The legal decode SMs that the spec allows; where it allows none, the next larger, or the largest."""
    if spec is None:
        return tuple(legal)
    least, most = spec.min or 1, spec.max or max(legal)
    inside = tuple(sms for sms in legal if least <= sms <= most)
    return inside or (min((sms for sms in legal if sms >= least), default=max(legal)),)


def nearest(legal: Sequence[int], sms: int) -> int:
    return min(legal, key=lambda one: (abs(one - sms), one))


def splittable(report: wire.Report) -> bool:
    """Its mode splits the device, and there is a choice."""
    return report.mode in capacity.SPLITTING and len(report.legal_splits) > 1


def why_not(reports: Iterable[wire.Report]) -> tuple[str, str]:
    """A reason and a sentence, of nodes none of which is split."""
    modes = {report.mode for report in reports}
    still = sorted(modes - capacity.SPLITTING)
    if still and len(still) == len(modes):
        return (
            "ModeDoesNotSplit",
            f"mode {' and '.join(still)} does not split a device: there is nothing to steer",
        )
    return "DeviceCannotBeSplit", "no node's device can be split: there is nothing to steer"


def adopt(state: SplitState, service: DriftService, nodes: Sequence[Node], now_s: float) -> SplitState:
    """With the nodes that there are. A new one keeps the bounds that it reports, those of an earlier operator; where
    it has none it begins with the spec's. Unknown nodes keep theirs."""
    spec = service.spec.multiplexing.decode_sms
    held: dict[str, Bounds] = {}
    for node in nodes:
        before, report = state.nodes.get(node.name), node.report
        if report is None:
            if before is not None:
                held[node.name] = before
        elif splittable(report):
            legal = allowed(sorted({split.decode_sms for split in report.legal_splits}), spec)
            held[node.name] = before.within(legal) if before is not None else _first(report, legal, spec)
    if held == state.nodes:
        return state
    began_s = now_s if state.changed_s == -math.inf else state.changed_s
    return replace(state, nodes=held, changed_s=began_s)


def since_s(state: SplitState, service: DriftService) -> float:
    """From when on what is counted says something of the present bounds."""
    return state.changed_s + seconds(service.spec.multiplexing.min_dwell)


def move(
    state: SplitState, service: DriftService, nodes: Sequence[Node], evidence: Evidence, now_s: float
) -> tuple[SplitState, tuple[Decision, ...]]:
    """One step at most, at most once an update interval. `nodes` are those that serve and are known."""
    if now_s < max(
        state.looked_s + seconds(service.spec.multiplexing.update_interval), since_s(state, service)
    ):
        return state, ()
    state = replace(state, looked_s=now_s)
    slo = service.spec.slo
    full = [node for node in nodes if _full(node)]
    side = _side(evidence, slo, rows_lack=bool(full))
    if side > 0:
        late = [node for node in nodes if _late(node, slo)]
        text = _said("time between tokens", evidence.tbt)
        return _moved(state, late or nodes, 1, "TbtBurning", text, now_s)
    if side < 0:
        text = _said("time to first token", evidence.ttft)
        if full:
            return _moved(state, full, 0, "WaitingForRows", text, now_s)
        queues = [node for node in nodes if _queues(node, slo)]
        return _moved(state, queues or nodes, -1, "TtftBurning", text, now_s)
    both = evidence.ttft.burns(slo.ttft.attainment) and evidence.tbt.burns(slo.tbt.attainment)
    if both and now_s - state.changed_s >= state.relax_s:
        text = f"both promises were missed for {now_s - state.changed_s:.0f} s"
        return _moved(state, nodes, 0, "NoSplitHelps", text, now_s)
    calm = evidence.ttft.calm(slo.ttft.attainment) and evidence.tbt.calm(slo.tbt.attainment)
    if calm and now_s - state.changed_s >= state.relax_s:
        text = f"both promises were kept for {now_s - state.changed_s:.0f} s"
        return _moved(state, nodes, 0, "Relaxing", text, now_s)
    return state, ()


def _first(report: wire.Report, legal: tuple[int, ...], spec: DecodeSms | None) -> Bounds:
    if report.epoch and report.bounds is not None:
        floor, ceiling = (nearest(legal, sms) for sms in report.bounds)
        return Bounds(floor, max(floor, ceiling), legal)
    if not report.epoch and spec is not None and spec.initial is not None:
        initial = nearest(legal, spec.initial)
        return Bounds(initial, initial, legal)
    return Bounds.widest(legal)


def _moved(
    state: SplitState, nodes: Sequence[Node], direction: int, reason: str, text: str, now_s: float
) -> tuple[SplitState, tuple[Decision, ...]]:
    if direction and state.direction == -direction and now_s - state.changed_s < state.relax_s:
        return state, ()  # what helps one promise just now broke the other: stay
    turns = {1: Bounds.more_decode, -1: Bounds.more_prefill, 0: Bounds.wider}
    held = dict(state.nodes)
    moves: dict[tuple[str, str], list[str]] = {}
    for node in nodes:
        if (before := held.get(node.name)) is None:
            continue
        after = turns[direction](before)
        if after != before:
            held[node.name] = after
            moves.setdefault((str(before), str(after)), []).append(node.name)
    if not moves:
        return state, ()
    decisions = [
        Decision(
            "split",
            before,
            after,
            reason,
            text if len(names) == 1 else f"{text}; on {len(names)} nodes",
            now_s,
            names[0] if len(names) == 1 else None,
        )
        for (before, after), names in moves.items()
    ]
    relax_s = state.relax_s
    if direction and state.direction in (0, -direction) and now_s - state.changed_s < 2 * relax_s:
        relax_s = min(2 * relax_s, LONGEST_RELAX_S)  # the last step was one too many
    elif direction == state.direction == 0:
        relax_s = max(relax_s / 2, RELAX_S)
    return SplitState(held, now_s, now_s, direction, relax_s), tuple(decisions)


def _side(evidence: Evidence, slo: Slo, *, rows_lack: bool) -> int:
    """For which promise a step would be: 1 that of tokens, -1 that of first tokens, 0 neither."""
    ttft, tbt = evidence.ttft.burns(slo.ttft.attainment), evidence.tbt.burns(slo.tbt.attainment)
    if not (ttft and tbt):
        return tbt - ttft
    between, first = evidence.tbt.burn(slo.tbt.attainment), evidence.ttft.burn(slo.ttft.attainment)
    return rows_lack or (between or 0.0) > LOPSIDED * (first or 0.0)


def _late(node: Node, slo: Slo) -> bool:
    report = node.report
    return report is not None and report.running > 0 and report.tbt_p99_ms > slo.tbt.target_ms


def _queues(node: Node, slo: Slo) -> bool:
    report = node.report
    if report is None or not report.prefill_tokens_per_s:
        return False
    waiting_s = report.queued_tokens / report.prefill_tokens_per_s
    return waiting_s > WAITING_SHARE * slo.ttft.target_ms / 1000


def _full(node: Node) -> bool:
    """Requests wait for others to end, not for a prefill."""
    report = node.report
    return report is not None and 0 < report.max_running <= report.running


def _said(what: str, judged: Judged) -> str:
    return f"{judged.missed} of {judged.total} requests missed their {what} since the last change"
