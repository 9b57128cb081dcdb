"""How many nodes: up at once, down one at a time and only with proof, never for what more nodes can't help."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lever_scenes
from drift_operator.driftservice import DriftService
from drift_operator.levers import replicas
from drift_operator.levers.decisions import Decision
from drift_operator.levers.load import Load
from drift_operator.levers.observations import Replicas
from drift_operator.levers.replicas import HIGH, INTERVAL_S, LOW, PENDING_S, SETTLE_S, ReplicasState, Signals

PER_NODE = 10.0


def load(rate: float, nodes: int, *, hopeless: float = 0.0, per_node: float = PER_NODE) -> Load:
    """Every node carries ten requests a second; `hopeless` ones more take as long."""
    carried, fewer = per_node * nodes, per_node * (nodes - 1)
    everything = rate + hopeless
    return Load(
        rate,
        nodes,
        rate / carried,
        rate / fewer if fewer else 100.0,
        everything / carried,
        everything / fewer if fewer else 100.0,
        per_node,
    )


class Fleet:
    """Nodes that are there as soon as they are wanted, unless a test says otherwise."""

    def __init__(self, service: DriftService | None = None, nodes: int = 4) -> None:
        self.service = service or lever_scenes.scaled(1, 20)
        self.state = ReplicasState()
        self.nodes = nodes
        self.now_s = 1000.0
        self.decisions: list[Decision] = []

    def after(
        self,
        seconds: float,
        rate: float | None,
        *,
        burning: str = "",
        calm: bool = True,
        hopeless: float = 0.0,
        per_node: float = PER_NODE,
        **found: Any,
    ) -> int:
        """In steps of five seconds. `rate` None: unknown."""
        for _ in range(max(1, round(seconds / 5))):
            self.now_s += min(5.0, seconds)
            present = Replicas(**{"wanted": self.nodes, "present": self.nodes, **found})
            known = load(rate, self.nodes, hopeless=hopeless, per_node=per_node) if rate is not None else None
            self.state, made = replicas.move(
                self.state, self.service, present, Signals(known, burning, calm), self.now_s
            )
            self.decisions += made
            if self.state.desired is not None and not self.service.spec.autoscaling.advisory:  # type: ignore[union-attr]
                self.nodes = self.state.desired
        return self.nodes


def test_within_the_band_nothing_moves() -> None:
    for rate in (4 * PER_NODE * HIGH, 3 * PER_NODE * LOW + 0.1):
        fleet = Fleet()
        assert fleet.after(600, rate) == 4
        assert fleet.decisions == []


def test_above_the_band_it_goes_up_to_its_middle_at_once() -> None:
    fleet = Fleet()
    assert fleet.after(5, 50.0) == 7
    (decision,) = fleet.decisions
    assert (decision.before, decision.after, decision.reason) == ("4", "7", "Pressure")
    assert decision.message == "pressure 1.25 at 50 requests/s is above 0.85"
    assert fleet.after(60, 50.0) == 7


def test_a_service_that_begins_decides_nothing() -> None:
    """There is no node yet, and as many are wanted as the service has at least."""
    fleet = Fleet(lever_scenes.scaled(2, 8), nodes=2)
    assert fleet.after(60, None, present=0) == 2
    assert fleet.after(60, None, pending=2) == 2
    assert fleet.after(60, 10.0) == 2
    assert fleet.decisions == []


def test_a_step_up_is_capped() -> None:
    fleet = Fleet(lever_scenes.scaled(1, 1000), nodes=1)
    seen = [fleet.after(INTERVAL_S, 1000.0) for _ in range(8)]
    assert seen[:4] == [5, 10, 20, 40]
    assert seen[-1] == seen[-2] == 130


def test_pressure_may_have_to_last() -> None:
    fleet = Fleet(lever_scenes.scaled(1, 20, stabilization={"up": "1m", "down": "0s"}))
    assert fleet.after(55, 50.0) == 4
    assert fleet.after(INTERVAL_S, 30.0) == 4
    assert fleet.after(60, 50.0) == 4
    assert fleet.after(INTERVAL_S, 50.0) == 7


def test_it_goes_down_one_at_a_time_when_one_less_would_do_for_long() -> None:
    fleet = Fleet(lever_scenes.scaled(1, 20, stabilization={"up": "0s", "down": "1m"}))
    assert fleet.after(60, 1.0) == 4
    assert fleet.after(INTERVAL_S, 1.0) == 3
    assert fleet.decisions[-1].reason == "Spare"
    assert fleet.decisions[-1].message == "pressure would be 0.03 with 3, for 60 s at most 0.7"
    assert fleet.after(55, 1.0) == 3
    assert fleet.after(INTERVAL_S, 1.0) == 2
    assert fleet.after(600, 1.0) == 1


@pytest.mark.parametrize("interruption", [{"rate": 22.0}, {"rate": None}, {"rate": 1.0, "calm": False}])
def test_slack_that_is_interrupted_begins_anew(interruption: dict[str, Any]) -> None:
    fleet = Fleet(lever_scenes.scaled(1, 20, stabilization={"up": "0s", "down": "1m"}))
    fleet.after(45, 1.0)
    fleet.after(INTERVAL_S, **interruption)
    assert fleet.after(60, 1.0) == 4


def test_unknown_holds() -> None:
    fleet = Fleet()
    assert fleet.after(1000, None) == 4
    assert fleet.state.pressure is None
    assert fleet.decisions == []


def test_hopeless_requests_add_no_node_and_keep_those_that_they_need() -> None:
    fleet = Fleet()
    assert fleet.after(600, 1.0, hopeless=200.0) == 4
    assert fleet.state.pressure == 1.0
    assert fleet.decisions == []


def test_burning_adds_one_although_the_model_says_it_fits_and_waits_for_what_that_does() -> None:
    fleet = Fleet()
    fleet.after(SETTLE_S, 25.0)
    assert fleet.after(INTERVAL_S, 25.0, burning="it burns") == 5
    assert fleet.decisions[-1].reason == "Burning"
    assert fleet.state.pressure is not None
    assert fleet.state.pressure > 1.1
    assert fleet.after(SETTLE_S - INTERVAL_S, 25.0, burning="it burns") == 5
    assert fleet.after(2 * INTERVAL_S, 25.0, burning="it burns") == 6


def test_burning_that_nodes_do_not_mend_adds_no_more() -> None:
    fleet = Fleet()
    assert fleet.after(3600, 20.0, burning="it burns") == 5
    assert fleet.state.pressure is not None
    assert fleet.state.pressure < 1.0


def test_a_new_operator_does_not_act_on_what_burned_before() -> None:
    assert Fleet().after(SETTLE_S - 10, 25.0, burning="it burns") == 4


def test_what_was_taken_away_too_early_is_taken_away_later_the_next_time() -> None:
    """The model says that one node would do; two are needed to keep the promise."""
    fleet = Fleet(lever_scenes.scaled(1, 8, stabilization={"up": "0s", "down": "2m"}), nodes=2)
    for _ in range(4 * 3600 // 15):
        fleet.after(INTERVAL_S, 6.5, burning="it burns" if fleet.nodes == 1 else "")
    falls = [one.at_s for one in fleet.decisions if one.reason == "Spare"]
    assert falls[1] - falls[0] < 0.5 * (falls[4] - falls[3])
    assert falls[-1] - falls[-2] > 8 * 120


@pytest.mark.parametrize("predictor", ["Kalman", "HoltWinters"])
def test_a_forecast_adds_nodes_before_they_are_needed(predictor: str) -> None:
    fleet = Fleet(lever_scenes.scaled(1, 20, predictor=predictor))
    while not fleet.decisions:
        fleet.after(INTERVAL_S, 24.0 + (fleet.now_s - 1000.0) / 30)
    assert fleet.decisions[0].reason == "Forecast"
    assert fleet.decisions[0].after == "5"
    assert "requests/s are forecast, 8.5 fit on a node" in fleet.decisions[0].message


def test_bounds_hold_at_once_whatever_else() -> None:
    fleet = Fleet(lever_scenes.scaled(6, 20))
    assert fleet.after(1, None) == 6
    fleet.service = lever_scenes.scaled(1, 3)
    assert fleet.after(1, 50.0) == 3
    assert [decision.reason for decision in fleet.decisions] == ["Bounds", "Bounds"]
    assert fleet.after(600, 500.0) == 3
    assert fleet.state.limited.reason == "AtMaximum"
    assert "maxReplicas is 3" in fleet.state.limited.message


@pytest.mark.parametrize(
    ("found", "reason"),
    [({"present": 3}, "NodesStarting"), ({"pending": 1}, "NodesStarting"), ({"present": 5}, "NodesStarting")],
)
def test_nothing_moves_while_nodes_come_or_go(found: dict[str, Any], reason: str) -> None:
    for rate in (100.0, 0.0):
        fleet = Fleet()
        assert fleet.after(PENDING_S - 20, rate, **found) == 4
        assert (fleet.state.limited.status, fleet.state.limited.reason) == ("True", reason)


def test_a_node_that_never_gets_ready_is_not_waited_for_for_ever() -> None:
    fleet = Fleet()
    assert fleet.after(PENDING_S + 2 * INTERVAL_S, 100.0, pending=1) > 4


def test_a_full_cluster_is_asked_for_no_more_but_may_give_back() -> None:
    full: dict[str, Any] = {
        "pending": 1,
        "unschedulable": 1,
        "why": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
    }
    fleet = Fleet()
    assert fleet.after(2000, 100.0, **full) == 4
    assert fleet.state.limited.reason == "Unschedulable"
    assert "Insufficient nvidia.com/gpu" in fleet.state.limited.message
    assert fleet.after(INTERVAL_S, 1.0, **full) == 3


def test_advice_is_said_and_not_taken() -> None:
    fleet = Fleet(lever_scenes.scaled(1, 20, advisory=True))
    assert fleet.after(300, 50.0) == 4
    assert fleet.state.advised == 7
    (decision,) = fleet.decisions
    assert decision.message.startswith("advice only: ")


@pytest.mark.parametrize("mode", ["HPA", "KEDA", "External"])
def test_outside_autoscalers_are_told_the_pressure_only(mode: str) -> None:
    fleet = Fleet(lever_scenes.scaled(1, 20, mode=mode))
    assert fleet.after(60, 50.0) == 4
    assert fleet.state.desired is None
    assert fleet.state.pressure == pytest.approx(1.25 / 0.775, abs=1e-3)
    assert fleet.decisions == []


def test_the_band_is_what_an_autoscaler_tolerates() -> None:
    """It does nothing between 0.9 and 1.1."""
    for rate, told in ((4 * PER_NODE * HIGH, 1.1), (4 * PER_NODE * LOW, 0.9)):
        fleet = Fleet()
        fleet.after(5, rate)
        assert fleet.state.pressure == pytest.approx(told, abs=0.005)


def test_paused_moves_nothing_and_takes_over_what_was_changed_meanwhile() -> None:
    spec = {"autoscaling": {"minReplicas": 1, "maxReplicas": 20}, "paused": True}
    fleet = Fleet(lever_scenes.service(spec))
    assert fleet.after(60, 500.0) == 4
    assert fleet.state.desired is None
    assert fleet.state.pressure is not None
    fleet.nodes = 9
    fleet.service = lever_scenes.scaled(1, 20)
    assert fleet.after(5, 70.0) == 9


def test_another_predictor_begins_anew() -> None:
    fleet = Fleet(lever_scenes.scaled(1, 20, predictor="Kalman"))
    fleet.after(300, 30.0)
    assert fleet.state.forecaster.floor is not None
    fleet.service = lever_scenes.scaled(1, 20)
    fleet.after(INTERVAL_S, 30.0)
    assert fleet.state.forecaster.floor is None


steps = st.tuples(
    st.floats(1.0, 200.0),
    st.none() | st.floats(0.0, 1e6),
    st.booleans(),
    st.integers(0, 3),
    st.integers(0, 2),
    st.sampled_from([(1, 20), (3, 5), (2, 2), (10, 40)]),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(steps, max_size=30), st.sampled_from(["None", "Kalman", "HoltWinters"]))
def test_the_number_keeps_its_bounds_and_steps(taken: list[Any], predictor: str) -> None:
    fleet = Fleet()
    for seconds, rate, burning, pending, unschedulable, (least, most) in taken:
        fleet.service = lever_scenes.scaled(least, most, predictor=predictor)
        before = len(fleet.decisions)
        nodes = fleet.after(
            seconds,
            rate,
            burning="it burns" if burning else "",
            pending=pending,
            unschedulable=min(pending, unschedulable),
        )
        assert least <= nodes <= most
        for decision in fleet.decisions[before:]:
            old, new = int(decision.before), int(decision.after)
            if decision.reason != "Bounds":
                assert new == old - 1 or old < new <= old + max(4, old)
                assert rate is not None


@pytest.mark.parametrize("predictor", ["None", "Kalman", "HoltWinters"])
@pytest.mark.parametrize("mean", [3.0, 24.0, 68.0])
def test_noise_turns_the_number_rarely(predictor: str, mean: float) -> None:
    """Two hours of Poisson arrivals, counted over half a minute."""
    dice = np.random.default_rng(5)
    fleet = Fleet(lever_scenes.scaled(1, 40, predictor=predictor, stabilization={"up": "0s", "down": "5m"}))
    fleet.after(600, mean)
    fleet.decisions.clear()
    for _ in range(480):
        fleet.after(INTERVAL_S, float(dice.poisson(30 * mean)) / 30)
    directions = [int(one.after) > int(one.before) for one in fleet.decisions]
    turns = sum(a != b for a, b in itertools.pairwise(directions))
    assert turns <= 2, [(one.at_s, one.before, one.after, one.message) for one in fleet.decisions]
