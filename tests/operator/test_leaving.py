"""How nodes leave: marked, drained, released; no request lost, and as many stay as are wanted."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from drift_operator.reconciling import leaving
from drift_operator.reconciling.leaving import SETTLE_S
from drift_operator.reconciling.pods import Drain, Pod

TIMEOUT_S = 60.0


def pod(number: int, *, ready: bool = True, drain: Drain | None = None, terminating: bool = False) -> Pod:
    return Pod(
        name=f"pod-{number}",
        uid=str(number),
        url=None,
        created_s=float(number),
        ready=ready,
        terminating=terminating,
        drain=drain,
        unschedulable=None,
        stuck=None,
        started=True,
        restarts=0,
    )


def test_nobody_leaves_where_as_many_are_wanted() -> None:
    found = leaving.depart(2, 2, [pod(0), pod(1)], [], {}, TIMEOUT_S, 100.0)
    assert found == leaving.Departure(2, {}, ())


def test_a_new_service_begins_with_what_is_wanted() -> None:
    assert leaving.depart(3, None, [], [], {}, TIMEOUT_S, 100.0).replicas == 3


def test_the_first_of_the_order_is_marked_and_stays_for_now() -> None:
    found = leaving.depart(1, 2, [pod(0), pod(1)], ["pod-0", "pod-1"], {"pod-0": 4}, TIMEOUT_S, 100.0)
    assert found == leaving.Departure(2, {"pod-0": Drain(100.0, 160.0)}, ())


def test_one_that_is_not_ready_leaves_before_others_and_at_once() -> None:
    found = leaving.depart(1, 2, [pod(0), pod(1, ready=False)], ["pod-0"], {}, TIMEOUT_S, 100.0)
    assert found.mark == {"pod-1": Drain(100.0, 100.0)}


def test_a_node_without_requests_is_released_once_routers_have_heard() -> None:
    pods = [pod(0), pod(1, drain=Drain(100.0, 160.0))]
    early = leaving.depart(1, 2, pods, [], {"pod-1": 0}, TIMEOUT_S, 100.0 + SETTLE_S / 2)
    assert early == leaving.Departure(2, {}, ())
    late = leaving.depart(1, 2, pods, [], {"pod-1": 0}, TIMEOUT_S, 100.0 + SETTLE_S)
    assert late == leaving.Departure(1, {}, ("pod-1",))


def test_one_whose_requests_are_unknown_is_waited_for_until_its_time_is_up() -> None:
    pods = [pod(0), pod(1, drain=Drain(100.0, 160.0))]
    assert leaving.depart(1, 2, pods, [], {}, TIMEOUT_S, 159.0).release == ()
    assert leaving.depart(1, 2, pods, [], {}, TIMEOUT_S, 160.0).release == ("pod-1",)


def test_a_node_that_is_wanted_again_is_made_beside_the_one_that_leaves() -> None:
    pods = [pod(0), pod(1, drain=Drain(100.0, 160.0))]
    assert leaving.depart(2, 2, pods, [], {"pod-1": 3}, TIMEOUT_S, 110.0).replicas == 3


@given(st.integers(0, 5), st.integers(0, 8), st.lists(st.booleans(), max_size=6))
def test_never_more_are_marked_than_are_too_many(wanted: int, present: int, ready: list[bool]) -> None:
    pods = [pod(number, ready=each) for number, each in enumerate(ready)]
    found = leaving.depart(wanted, present, pods, [], {}, TIMEOUT_S, 100.0)
    assert len(pods) - len(found.mark) >= min(wanted, len(pods))
    assert len(found.mark) <= max(0, present - wanted)


class Deployment(RuleBasedStateMachine):
    """Kubernetes' part, as it behaves: pods are made and taken late, unready and cheap ones first."""

    @initialize(wanted=st.integers(1, 4))
    def begin(self, wanted: int) -> None:
        self.now_s, self.wanted, self.present = 1000.0, wanted, wanted
        self.number = 0
        self.pods: dict[str, Pod] = {}
        self.in_flight: dict[str, int] = {}
        self.marked_s: dict[str, float] = {}

    @rule()
    def controller(self) -> None:
        """Makes or deletes one pod."""
        alive = [each for each in self.pods.values() if not each.terminating]
        if len(alive) < self.present:
            made = pod(self.number, ready=False)
            self.number += 1
            self.pods[made.name] = made
        elif len(alive) > self.present:
            victim = min(alive, key=lambda each: (each.ready, each.drain is None, -each.created_s))
            self._delete(victim.name)

    @rule()
    def kubelet(self) -> None:
        for name, each in list(self.pods.items()):
            if each.terminating:
                del self.pods[name]
            elif not each.ready and each.drain is None:
                self.pods[name] = dataclasses.replace(each, ready=True)

    @rule(amount=st.integers(0, 3))
    def requests_come_and_go(self, amount: int) -> None:
        for name, each in self.pods.items():
            taken = amount if each.ready and each.drain is None else 0
            self.in_flight[name] = max(0, self.in_flight.get(name, 0) - 1) + taken

    @rule(wanted=st.integers(0, 5))
    def scale(self, wanted: int) -> None:
        self.wanted = wanted

    @rule(seconds=st.sampled_from([1.0, 5.0, 30.0]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @rule()
    def operator(self) -> None:
        found = leaving.depart(
            self.wanted, self.present, [*self.pods.values()], [], self.in_flight, TIMEOUT_S, self.now_s
        )
        self.present = found.replicas
        for name, drain in found.mark.items():
            self.pods[name] = dataclasses.replace(self.pods[name], drain=drain)
        for name in found.release:
            marked = self.pods[name].drain
            assert marked is not None
            assert not self.in_flight.get(name, 0) or self.now_s >= marked.until_s
            self._delete(name)

    @invariant()
    def as_many_stay_as_are_wanted(self) -> None:
        if hasattr(self, "present"):
            leaving_now = sum(each.drain is not None and not each.terminating for each in self.pods.values())
            assert self.present >= 0
            assert leaving.staying(self.present, [*self.pods.values()]) >= 0
            assert leaving_now <= len(self.pods)

    def teardown(self) -> None:
        """Left alone it comes to rest with exactly what is wanted."""
        if not hasattr(self, "present"):
            return
        for _ in range(40):
            self.operator()
            self.controller()
            self.kubelet()
            self.requests_come_and_go(0)
            self.now_s += 5.0
        assert len(self.pods) == self.wanted == self.present
        assert all(each.ready and each.drain is None for each in self.pods.values())

    def _delete(self, name: str) -> None:
        if name in self.pods:
            self.pods[name] = dataclasses.replace(self.pods[name], terminating=True)


TestDeployment = Deployment.TestCase
