"""The third lever: how many nodes there are.

In: the service's pressure (`load`), what burns, the forecast, and how the Deployment does. Out: the number of nodes
to want. Every INTERVAL_S:

    pressure above HIGH                      up at once (or after stabilization.up) to nodes * pressure / TARGET
    forecast above what the nodes carry      up to what carries it
    a promise burns fast and slowly          up by one, although the model says it fits
    pressure of one node less below LOW      down by one, after stabilization.down

Infeasible requests are no pressure, unknown is no reason for anything, and while nodes come or go nothing moves. The
result is clamped to the service's bounds after every stage.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from drift_operator.driftservice import Autoscaling, DriftService
from drift_operator.fields import seconds
from drift_operator.levers.decisions import Decision, Fact
from drift_operator.levers.forecasting import Forecaster
from drift_operator.levers.load import Load
from drift_operator.levers.observations import Replicas

INTERVAL_S = 15.0
"""As the horizontal pod autoscaler's."""

HIGH, TARGET, LOW = 0.85, 0.775, 0.70
"""The band, and its middle: with the autoscaler's tolerance of 10 % around it, the same band."""

AHEAD = 4
"""Intervals that a forecast looks ahead: a minute, in which a pod is placed and its weights come from a warm disk.
Estimate."""

STEP_NODES, STEP_SHARE = 4, 1.0
"""Most nodes added at a time: so many, or so large a share of those there are; the autoscaler's own default."""

SETTLE_S = 60.0
"""After a change of the number of nodes, before burning is a reason for one more: the fast window."""

REGRET_S, MOST_REGRETS = 600.0, 3
"""A node that is wanted again within this time was not one too many, whatever the model said: slack must then last
twice as long, up to eight times. Estimate."""

PENDING_S = 600.0
"""A node that is not ready after this is not waited for any more. Estimate: weights of 140 GB at 250 MB/s."""

DOUBT = 1.5
"""By how much more than the model asks for, and one node, burning may go: a promise that burns beyond that is not
mended by nodes (one of them is slow, or clients are). Estimate."""

BURNING = 1.11
"""Least pressure that is told to an autoscaler while a promise burns: just beyond its tolerance."""


NO_FORECAST = Forecaster(None, AHEAD)

WITHIN = Fact("False", "WithinBounds", "the number of nodes is what the load asks for")


@dataclass(frozen=True, slots=True)
class Signals:
    """Over which the number of nodes is decided. `load` None: unknown."""

    load: Load | None
    burning: str = ""
    """What burns, fast and slowly, for people; empty: nothing does."""
    calm: bool = True
    """Neither promise used up more than half of its allowance in the last minute."""


@dataclass(frozen=True, slots=True)
class ReplicasState:
    desired: int | None = None
    """None: not ours to say, or not taken over yet."""
    forecaster: Forecaster = NO_FORECAST
    predictor: str = "None"
    looked_s: float = -math.inf
    wanting_s: float | None = None
    """Since when more nodes are wanted."""
    spare_s: float | None = None
    """Since when one node less would do."""
    steady_s: float = -math.inf
    """Since when the nodes are those that are wanted."""
    unsteady_s: float | None = None
    """Since when they are not; None: they are."""
    fell_s: float = -math.inf
    """When a node was last taken away."""
    regrets: int = 0
    """How often that had to be taken back lately."""
    pressure: float | None = None
    """As it is told: 1 is the middle of the band. None: unknown."""
    advised: int | None = None
    """The last one that was said only."""
    limited: Fact = WITHIN


def move(
    state: ReplicasState, service: DriftService, replicas: Replicas, signals: Signals, now_s: float
) -> tuple[ReplicasState, tuple[Decision, ...]]:
    scaling = service.spec.autoscaling
    predictor = scaling.predictor if scaling is not None else "None"
    if predictor != state.predictor:
        state = replace(state, predictor=predictor, forecaster=Forecaster.of(predictor, AHEAD))
    due = now_s - state.looked_s >= INTERVAL_S
    if due:
        state = _looked(state, signals, now_s)
    if scaling is None or scaling.mode != "Operator" or service.spec.paused:
        return replace(state, desired=None, wanting_s=None, spare_s=None, unsteady_s=None), ()
    present = state.desired if state.desired is not None and not scaling.advisory else replicas.wanted
    desired = present if scaling.advisory else _clamped(present, scaling)
    state = _settled(replace(state, desired=desired), replicas, now_s)
    if desired != present:
        text = f"minReplicas is {scaling.min_replicas}, maxReplicas {scaling.max_replicas}"
        return state, (_decision(present, desired, "Bounds", text, now_s),)
    if not due:
        return state, ()
    state, wanted, reason, text = _wanted(state, scaling, replicas, signals, now_s)
    state = replace(state, limited=_limited(state, scaling, replicas, wanted, now_s))
    wanted = _clamped(wanted, scaling)
    if scaling.advisory:
        news = wanted not in (desired, state.advised)
        state = replace(state, advised=wanted)
        return state, (_decision(desired, wanted, reason, f"advice only: {text}", now_s),) if news else ()
    if wanted == desired:
        return state, ()
    state = _changed(state, now_s, fell=wanted < desired)
    state = replace(state, desired=wanted, wanting_s=None, spare_s=None, unsteady_s=now_s)
    return state, (_decision(desired, wanted, reason, text, now_s),)


def _looked(state: ReplicasState, signals: Signals, now_s: float) -> ReplicasState:
    load = signals.load
    if load is None:
        return replace(state, looked_s=now_s, pressure=None)
    forecaster = state.forecaster.update(load.rate)
    told = load.pressure / TARGET
    if forecaster.floor is not None and load.per_node:
        told = max(told, forecaster.floor / (load.per_node * load.nodes * HIGH))
    if signals.burning and load.nodes < _doubted(load):
        told = max(told, BURNING)
    told = max(told, min(1.0, load.throughput / TARGET))  # hopeless requests keep the nodes that they need
    return replace(state, looked_s=now_s, forecaster=forecaster, pressure=round(told, 3))


def _settled(state: ReplicasState, replicas: Replicas, now_s: float) -> ReplicasState:
    """Whether the nodes are there that are wanted, and since when."""
    if replicas.present == state.desired and not replicas.pending:
        if state.unsteady_s is None and state.steady_s > -math.inf:
            return state
        return replace(state, steady_s=now_s, unsteady_s=None)
    return state if state.unsteady_s is not None else replace(state, unsteady_s=now_s)


def _wanted(
    state: ReplicasState, scaling: Autoscaling, replicas: Replicas, signals: Signals, now_s: float
) -> tuple[ReplicasState, int, str, str]:
    """The number of nodes before it is clamped, a reason and a sentence. The same number: hold."""
    assert state.desired is not None
    nodes, load = state.desired, signals.load
    waits_s = now_s - state.unsteady_s if state.unsteady_s is not None else None
    starting = waits_s is not None and waits_s < PENDING_S and not replicas.unschedulable
    if load is None or starting or (waits_s is not None and replicas.present != nodes):
        return replace(state, wanting_s=None, spare_s=None), nodes, "", ""
    more, reason, text = _more(state, load, signals, nodes, now_s)
    if more > nodes:
        since_s = state.wanting_s if state.wanting_s is not None else now_s
        state = replace(state, wanting_s=since_s, spare_s=None)
        if now_s - since_s < seconds(scaling.stabilization.up) or replicas.unschedulable:
            return state, nodes, "", ""
        step = max(STEP_NODES, math.ceil(STEP_SHARE * nodes))
        return state, min(more, nodes + step), reason, text
    state = replace(state, wanting_s=None)
    spare = load.fewer <= LOW and load.fewer_throughput <= LOW and signals.calm and not signals.burning
    if not spare or nodes <= scaling.min_replicas or _carrying(state, load, LOW) > nodes - 1:
        return replace(state, spare_s=None), nodes, "", ""
    since_s = state.spare_s if state.spare_s is not None else now_s
    state = replace(state, spare_s=since_s)
    if now_s - since_s < seconds(scaling.stabilization.down) * 2**state.regrets:
        return state, nodes, "", ""
    text = f"pressure would be {load.fewer:.2f} with {nodes - 1}, for {now_s - since_s:.0f} s at most {LOW:g}"
    return state, nodes - 1, "Spare", text


def _changed(state: ReplicasState, now_s: float, *, fell: bool) -> ReplicasState:
    """With what this says of the last time that a node was taken away."""
    since_s = now_s - state.fell_s
    regrets = state.regrets if since_s <= MOST_REGRETS * REGRET_S else 0
    if fell:
        return replace(state, fell_s=now_s, regrets=regrets)
    return replace(state, regrets=min(MOST_REGRETS, regrets + 1) if since_s <= REGRET_S else regrets)


def _more(
    state: ReplicasState, load: Load, signals: Signals, nodes: int, now_s: float
) -> tuple[int, str, str]:
    if load.pressure > HIGH:
        text = f"pressure {load.pressure:.2f} at {load.rate:.3g} requests/s is above {HIGH:g}"
        return max(nodes + 1, math.ceil(load.nodes * load.pressure / TARGET - 1e-9)), "Pressure", text
    carrying = _carrying(state, load, HIGH)
    if carrying > nodes:
        text = (
            f"{state.forecaster.floor:.3g} requests/s are forecast, {load.per_node * HIGH:.3g} fit on a node"
        )
        return carrying, "Forecast", text
    settled = state.unsteady_s is None and now_s - state.steady_s >= SETTLE_S
    if signals.burning and settled and nodes < _doubted(load):
        return nodes + 1, "Burning", f"{signals.burning}, although pressure is {load.pressure:.2f}"
    return nodes, "", ""


def _doubted(load: Load) -> int:
    """Most nodes that burning may ask for."""
    return math.ceil(DOUBT * load.nodes * load.pressure / TARGET) + 1


def _carrying(state: ReplicasState, load: Load, pressure: float) -> int:
    """Nodes that carry the forecast at this pressure."""
    floor = state.forecaster.floor
    if floor is None or not load.per_node:
        return 0
    return math.ceil(floor / (load.per_node * pressure) - 1e-9)


def _limited(
    state: ReplicasState, scaling: Autoscaling, replicas: Replicas, wanted: int, now_s: float
) -> Fact:
    if replicas.unschedulable:
        why = f": {replicas.why}" if replicas.why else ""
        return Fact(
            "True", "Unschedulable", f"the cluster has no place for {replicas.unschedulable} nodes{why}"
        )
    if replicas.present != state.desired or replicas.pending:
        ready = replicas.present - replicas.pending
        return Fact(
            "True", "NodesStarting", f"{ready} of {state.desired} nodes are ready: nothing moves until then"
        )
    if wanted > scaling.max_replicas:
        return Fact(
            "True", "AtMaximum", f"{wanted} nodes would be needed, maxReplicas is {scaling.max_replicas}"
        )
    return WITHIN


def _clamped(nodes: int, scaling: Autoscaling) -> int:
    return min(max(nodes, scaling.min_replicas), scaling.max_replicas)


def _decision(before: int, after: int, reason: str, text: str, now_s: float) -> Decision:
    return Decision("replicas", str(before), str(after), reason, text, now_s)
