"""All three levers on their clocks, over one observation: `step`.

    observation -> sane -> ledger -> figures, feasibility        every look, every JUDGED_S
                                  -> split -> weights            every update interval, every 2 s
                                  -> load -> replicas            every 15 s
                                  -> set-points that are due

The state is one immutable value, empty at first: a new operator takes over what nodes report and how many there are,
and moves nothing by being new.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from drift_engine import wire
from drift_operator.driftservice import DriftService, Slo
from drift_operator.fields import seconds
from drift_operator.levers import demand, feasibility, figures, leaving, replicas, setpoints, split, weights
from drift_operator.levers.attainment import FAST_S, Judged, Ledger, Sums
from drift_operator.levers.decisions import Decision, Fact
from drift_operator.levers.feasibility import Verdict
from drift_operator.levers.load import Load, load
from drift_operator.levers.observations import Node, Observation, sane
from drift_operator.levers.replicas import ReplicasState, Signals
from drift_operator.levers.setpoints import SentState, SetPoint
from drift_operator.levers.split import Evidence, SplitState
from drift_operator.levers.weights import WeightsState
from drift_operator.status import SloStatus

JUDGED_S = 5.0
"""Between two looks at figures and feasibility: they are for people."""

SAID_S = 300.0
"""For which feasibility is told in the same numbers, as long as they come to the same."""

PROBLEMS_SHOWN = 3


@dataclass(frozen=True, slots=True)
class State:
    """Of one service. Empty: of an operator that just started."""

    ledger: Ledger | None = None
    split: SplitState = field(default_factory=SplitState)
    weights: WeightsState = field(default_factory=WeightsState)
    replicas: ReplicasState = field(default_factory=ReplicasState)
    sent: SentState = field(default_factory=SentState)
    verdict: Verdict = field(default_factory=Verdict)
    load: Load | None = None
    slo: SloStatus = field(default_factory=lambda: SloStatus())
    judged_s: float = -math.inf
    said_s: float = -math.inf


BEGINNING = State()

UNJUDGED = Fact("Unknown", "NotJudged", "routers count which promises are kept, and a node alone has none")


@dataclass(frozen=True, slots=True)
class Outcome:
    set_points: tuple[SetPoint, ...]
    """To be sent now, each once."""
    sent: Mapping[str, SetPoint]
    """What each node was told last."""
    replicas: int | None
    """The number of nodes to have. None: leave it as it is."""
    desired: int | None
    """The number that the levers want, also where it is only advice. None: unknown, or another's to say."""
    victims: tuple[str, ...]
    """Nodes in the order in which they may leave."""
    pressure: float | None
    """For autoscalers, whose target is 1. None: unknown, which is no number."""
    decisions: tuple[Decision, ...]
    """Of this step, the oldest first."""
    slo: SloStatus
    burn_rates: dict[str, dict[str, float]]
    """Of `ttft` and `tbt`, by window (`1m`, `10m`), where anything was judged."""
    facts: Mapping[str, Fact]
    """By type of condition: MetricsAvailable, SLOFeasible, SLOMet, SplitConverged, ScalingActive, ScalingLimited."""
    load: Load | None
    """What the number of nodes was last judged by."""
    believed: Observation
    """What was observed, without the reports that can't be true."""


def step(
    state: State, service: DriftService, observation: Observation, now_s: float
) -> tuple[State, Outcome]:
    """`now_s` is of any clock that does not run backwards."""
    observation, problems = sane(observation)
    slo, paused = service.spec.slo, service.spec.paused
    if state.ledger is not None and state.ledger.promise != slo:
        state = replace(state, verdict=Verdict(), judged_s=-math.inf)
    ledger = (state.ledger or Ledger.empty(slo, now_s)).promised(slo).observe(observation.routers, now_s)
    state = _judged(replace(state, ledger=ledger), slo, observation, now_s)
    known = tuple(node for node in observation.serving if node.report is not None)
    decisions: list[Decision] = []

    splits = split.adopt(state.split, service, observation.nodes, now_s)
    weighed = weights.adopt(state.weights, observation.nodes, now_s)
    if not paused:
        since_s = max(split.since_s(splits, service), now_s - FAST_S)
        evidence = _evidence(ledger.fast.since(since_s), state.verdict)
        splits, made = split.move(splits, service, known, evidence, now_s)
        decisions += made
        weighed, made = weights.move(weighed, slo, observation.nodes, now_s)
        decisions += made

    if now_s - state.replicas.looked_s >= replicas.INTERVAL_S:
        asked = demand.demand(ledger, observation, now_s)
        found = load(asked, observation.serving, state.verdict, service) if asked is not None else None
        state = replace(state, load=found)
    fast, slow = ledger.fast.all, ledger.slow.all
    signals = _signals(replace(state, split=splits), fast, slow, slo, now_s)
    counted, made = replicas.move(state.replicas, service, observation.replicas, signals, now_s)
    decisions += made

    wanted = _wanted(service, observation.nodes, splits, weighed, state.sent)
    interval_s = seconds(service.spec.multiplexing.update_interval)
    sent, due = setpoints.due(state.sent, observation.nodes, wanted, interval_s, now_s)
    state = replace(state, split=splits, weights=weighed, replicas=counted, sent=sent)
    advisory = service.spec.autoscaling is not None and service.spec.autoscaling.advisory
    return state, Outcome(
        set_points=due,
        sent={name: told.point for name, told in sent.nodes.items()},
        replicas=None if advisory else counted.desired,
        desired=counted.advised if advisory and counted.advised is not None else counted.desired,
        victims=leaving.order(observation.nodes),
        pressure=counted.pressure,
        decisions=tuple(decisions),
        slo=state.slo,
        burn_rates=_burn_rates(fast, slow, slo),
        facts=_facts(state, service, observation, problems),
        load=state.load,
        believed=observation,
    )


def _judged(state: State, slo: Slo, observation: Observation, now_s: float) -> State:
    """Figures and feasibility, now and then."""
    ledger = state.ledger
    if ledger is None or now_s - state.judged_s < JUDGED_S:
        return state
    reports = [node.report for node in observation.nodes if node.report is not None]
    sums = ledger.fast.all
    reused_tokens = sums.cached_tokens / max(1, sums.requests)
    before = state.verdict
    verdict = feasibility.judge(reports, sums.lengths, reused_tokens, slo, before)
    same = replace(verdict, message=before.message) == before and now_s - state.said_s < SAID_S
    if same or verdict.feasible is None:
        verdict = before
    return replace(
        state,
        verdict=verdict,
        said_s=state.said_s if same else now_s,
        slo=figures.figures(ledger, slo, state.slo),
        judged_s=now_s,
    )


def _evidence(sums: Sums, verdict: Verdict) -> Evidence:
    """Without requests that no lever can help."""
    ttft = sums.ttft
    if verdict.lengths or not verdict.prefill:
        helped = [length for edge, length in sums.lengths.items() if verdict.helped(edge)]
        ttft = Judged(sum(one.kept for one in helped), sum(one.missed for one in helped))
    return Evidence(ttft, sums.tbt if verdict.decode else Judged())


def _signals(state: State, fast: Sums, slow: Sums, slo: Slo, now_s: float) -> Signals:
    lately, long_since = _evidence(fast, state.verdict), _evidence(slow, state.verdict)
    burning, calm = [], True
    for name, target, now, long in (
        ("time to first token", slo.ttft.attainment, lately.ttft, long_since.ttft),
        ("time between tokens", slo.tbt.attainment, lately.tbt, long_since.tbt),
    ):
        if now.burns(target) and long.burns(target):
            rates = f"{now.burn(target):.1f} over a minute and {long.burn(target):.1f} over ten"
            burning.append(f"the allowance of {name} burns at {rates}")
        calm = calm and now.calm(target)
    # A split that just moved has first to show what it does.
    tried = now_s - state.split.changed_s >= FAST_S
    return Signals(state.load, " and ".join(burning) if tried else "", calm)


def _burn_rates(fast: Sums, slow: Sums, slo: Slo) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {"ttft": {}, "tbt": {}}
    for window, sums in (("1m", fast), ("10m", slow)):
        for name, judged, target in (
            ("ttft", sums.ttft, slo.ttft.attainment),
            ("tbt", sums.tbt, slo.tbt.attainment),
        ):
            if (rate := judged.burn(target)) is not None:
                found[name][window] = rate
    return found


def _wanted(
    service: DriftService,
    nodes: tuple[Node, ...],
    splits: SplitState,
    weighed: WeightsState,
    sent: SentState,
) -> dict[str, SetPoint]:
    """Of nodes that take set-points: those that serve, and those that were told something and can't be heard now."""
    found = {}
    for node in nodes:
        weight = weighed.nodes[node.name].weight
        if node.report is None:
            if node.name in sent.nodes:
                found[node.name] = replace(sent.nodes[node.name].point, weight=weight)
        elif node.report.ready:
            bounds = _bounds(splits.nodes.get(node.name), node.report)
            generation = service.metadata.generation or 0
            found[node.name] = SetPoint(node.name, 0, generation, bounds, weight)
    return found


def _bounds(held: split.Bounds | None, report: wire.Report) -> tuple[int, int] | None:
    """None where they leave the node every split that it has."""
    sms = [one.decode_sms for one in report.legal_splits]
    if held is None or (held.floor <= min(sms) and held.ceiling >= max(sms)):
        return None
    return held.floor, held.ceiling


def _facts(
    state: State, service: DriftService, observation: Observation, problems: tuple[str, ...]
) -> dict[str, Fact]:
    return {
        "MetricsAvailable": _metrics(observation, problems),
        "SLOFeasible": _feasible(state.verdict),
        "SLOMet": _met(state.slo, service.spec.slo) if observation.routed else UNJUDGED,
        "SplitConverged": _converged(state, observation),
        "ScalingActive": _active(state, service),
        "ScalingLimited": state.replicas.limited,
    }


def _metrics(observation: Observation, problems: tuple[str, ...]) -> Fact:
    if problems:
        more = len(problems) - PROBLEMS_SHOWN
        text = "; ".join(problems[:PROBLEMS_SHOWN]) + (f"; and {more} more" if more > 0 else "")
        return Fact("False", "ReportsMissing", f"{text}: what depends on them stays as it is")
    if not observation.serving:
        return Fact("Unknown", "NoNodes", "no node serves yet")
    return Fact("True", "Reporting", "every node and router reports")


def _feasible(verdict: Verdict) -> Fact:
    if verdict.feasible is None:
        return Fact("Unknown", "SpeedUnknown", verdict.message)
    if verdict.feasible:
        return Fact("True", "Feasible", verdict.message)
    return Fact("False", "TooSlowAlone", f"{verdict.message}; more nodes can't help")


def _met(shown: SloStatus, slo: Slo) -> Fact:
    said, kept = [], True
    for name, target, part in (("TTFT", slo.ttft, shown.ttft), ("TBT", slo.tbt, shown.tbt)):
        if part is None or part.attainment is None:
            continue
        kept = kept and part.attainment >= target.attainment
        said.append(f"{name} {100 * part.attainment:g} % of {100 * target.attainment:g} %")
    if not said:
        return Fact("Unknown", "NoRequests", f"no request was judged in the last {slo.window}")
    text = f"within their target in the last {slo.window}: {', '.join(said)}"
    return Fact("True", "Kept", text) if kept else Fact("False", "Missed", text)


def _converged(state: State, observation: Observation) -> Fact:
    reports = [node.report for node in observation.serving if node.report is not None]
    if reports and not any(map(split.splittable, reports)):
        return Fact("True", *split.why_not(reports))
    return setpoints.converged(state.sent, observation.serving)


def _active(state: State, service: DriftService) -> Fact:
    scaling = service.spec.autoscaling
    if service.spec.paused:
        return Fact("False", "Paused", "all levers stay where they are until spec.paused is false")
    if scaling is None:
        return Fact("False", "Fixed", f"spec.replicas says {service.spec.wanted_replicas}")
    if state.replicas.pressure is None:
        return Fact("False", "LoadUnknown", "the load is not known, so the number of nodes stays as it is")
    if scaling.mode != "Operator":
        return Fact(
            "True", scaling.mode, f"the pressure is told; {scaling.mode} decides on the number of nodes"
        )
    if scaling.advisory:
        return Fact("True", "Advisory", "the number of nodes is said and not changed")
    return Fact("True", "Operator", "the number of nodes follows the load")
