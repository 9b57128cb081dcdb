"""Node processes as the pods of a service: they come and go as the levers say, and the router hears of it in time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import documents
from drift_operator import manifests
from drift_operator.errors import LocalError
from drift_operator.local import planning
from drift_operator.local.place import LocalPlace
from drift_operator.local.running import node_launch
from drift_operator.reconciling import conditions, leaving
from drift_operator.reconciling.leaving import SETTLE_S, Departure
from drift_operator.reconciling.pods import Drain, Stuck
from drift_operator.reconciling.views import View
from local_fleet import FakeFleet, FakeProcess, FakeRouterChannel, FreePorts

DRAIN_S = 20.0
TOKEN = "control-secret"


class Run:
    """A local run whose processes are a test's."""

    def __init__(self, first: int = 1, most: int = 3, **spec: Any) -> None:
        scaling = {"autoscaling": {"minReplicas": first, "maxReplicas": most}} if most > 1 else {}
        self.service = manifests.parse(documents.minimal(**scaling, **spec))
        plan = planning.plan(
            self.service,
            host="127.0.0.1",
            port=8000,
            spare=range(9000, 9000 + planning.spare_ports(self.service)),
            control_token=TOKEN,
            log_level=None,
            environ={},
        )
        self.fleet = FakeFleet(
            {node.options.node: FakeProcess(serving=True, served=True) for node in plan.nodes},
            FakeProcess(serving=True, served=True) if plan.router is not None else None,
        )
        self.channel = FakeRouterChannel()
        self.lines: list[str] = []
        self.free_ports = FreePorts()
        self.now_s = 0.0
        self.place = LocalPlace(
            self.fleet,
            self.channel,
            plan.mould,
            plan.nodes,
            launch=lambda node: node_launch(node, several=True),
            url="http://127.0.0.1:8000/v1",
            admin_url=plan.admin_url,
            token=TOKEN,
            tell=self.lines.append,
            free_ports=lambda host, count: self.free_ports(host, count),
        )

    def make(self, replicas: int, mark: tuple[str, ...] = (), release: tuple[str, ...] = ()) -> list[str]:
        marks = {name: Drain(self.now_s, self.now_s + DRAIN_S) for name in mark}
        departure = Departure(replicas, marks, release)
        return [*asyncio.run(self.place.make(self.service, departure, TOKEN, self.now_s))]

    def keep(self, wanted: int) -> None:
        """What a pass does of it, for nodes without requests."""
        scene = self.place.scene()
        assert scene.nodes is not None
        departure = leaving.depart(
            wanted,
            scene.nodes.wanted,
            scene.node_pods,
            [],
            {pod.name: 0 for pod in scene.node_pods if pod.ready},
            DRAIN_S,
            self.now_s,
        )
        asyncio.run(self.place.make(self.service, departure, TOKEN, self.now_s))


def test_a_node_that_is_wanted_is_started_in_the_next_share_of_the_machine() -> None:
    run = Run()
    run.make(2)
    assert [*run.fleet.nodes] == ["demo-0", "demo-1"]
    launch = run.fleet.launches["demo-1"]
    assert (launch.label, launch.port) == ("demo-1", 20_000)
    assert '"share":{"place":1,"of":3}' in launch.argv[-1]


def test_the_router_hears_of_a_node_when_it_serves() -> None:
    run = Run()
    run.make(2)
    assert [*run.channel.known] == ["demo-0"]
    run.fleet.nodes["demo-1"].serve()
    run.make(2)
    assert run.channel.known["demo-1"].url == "http://127.0.0.1:20000"
    assert run.channel.known["demo-1"].control_url == "http://127.0.0.1:20001"


def test_the_router_is_told_nothing_twice() -> None:
    run = Run()
    for _ in range(3):
        run.make(1)
    assert len(run.channel.words) == 1


def test_a_router_that_was_started_again_is_told_all_again() -> None:
    run = Run()
    run.make(1)
    assert run.fleet.router is not None
    run.fleet.router.die()
    run.make(1)
    run.fleet.router.serve()
    run.make(1)
    assert [word.epoch for word in run.channel.words] == [1, 2]


def test_what_does_not_reach_the_router_is_told_by_the_next_pass() -> None:
    run = Run()
    run.channel.away = True
    run.make(1)
    run.channel.away = False
    run.make(1)
    assert [*run.channel.known] == ["demo-0"]


def test_a_marked_node_drains_at_the_router_and_goes_on() -> None:
    run = Run(first=2)
    run.make(2, mark=("demo-1",))
    assert [node.draining for node in run.channel.known.values()] == [False, True]
    assert run.fleet.stopped == []
    (pod,) = [pod for pod in run.place.scene().node_pods if pod.leaving]
    assert (pod.name, pod.drain) == ("demo-1", Drain(0.0, DRAIN_S))


def test_a_released_node_is_asked_to_end_and_forgotten_when_it_has() -> None:
    run = Run(first=2)
    run.make(2, mark=("demo-1",))
    run.make(1, release=("demo-1",))
    assert run.fleet.stopped == ["demo-1"]
    workload = run.place.scene().nodes
    assert workload is not None
    assert (workload.wanted, workload.present) == (1, 1)
    run.fleet.end("demo-1")
    run.make(1)
    assert [*run.channel.known] == ["demo-0"]
    run.make(2)
    assert [pod.drain for pod in run.place.scene().node_pods] == [None, None]


def test_a_node_that_died_stays_a_pod_that_restarts() -> None:
    run = Run()
    run.make(1)
    run.fleet.nodes["demo-0"].die()
    run.make(1)
    (pod,) = run.place.scene().node_pods
    assert (pod.ready, pod.restarts, pod.stuck) == (False, 1, Stuck("setup", "node was killed by SIGKILL"))
    assert [*run.fleet.nodes] == ["demo-0"]
    assert [*run.channel.known] == ["demo-0"]


def test_nothing_is_started_while_the_run_ends() -> None:
    run = Run()
    run.fleet.stopping = True
    run.make(3)
    assert [*run.fleet.nodes] == ["demo-0"]


def test_a_machine_without_a_free_port_says_so() -> None:
    run = Run()

    def none(host: str, count: int) -> list[int]:
        raise LocalError("127.0.0.1:0 can't be listened on: no port is free")

    run.free_ports = none  # type: ignore[assignment]
    assert run.make(2) == ["127.0.0.1:0 can't be listened on: no port is free"]


def test_a_node_alone_has_no_router_and_misses_none() -> None:
    run = Run(most=1)
    run.make(1)
    scene = run.place.scene()
    assert (scene.routed, scene.router_pods) == (False, ())
    assert run.channel.words == []


@pytest.mark.parametrize(("most", "router"), [(1, "NotNeeded"), (2, "Available")])
def test_nodes_that_serve_are_ready_as_on_a_cluster(most: int, router: str) -> None:
    scene = Run(most=most).place.scene()
    view = View(
        generation=1,
        wanted=1,
        nodes=scene.nodes,
        routers=scene.routers,
        node_pods=scene.node_pods,
        router_pods=scene.router_pods,
        reports={},
        eligible=1 if scene.routed else None,
        routed=scene.routed,
    )
    facts = conditions.of_cluster(view, was_ready=False, paused=False)
    assert (facts["Ready"].reason, facts["RouterReady"].reason) == ("Serving", router)
    assert (facts["Progressing"].status, facts["Degraded"].status) == ("False", "False")


def test_good_news_of_every_start_is_no_line() -> None:
    run = Run()
    run.place.record({}, "Normal", "Serving", "1 node of 1 wanted answer requests")
    run.place.record({}, "Normal", "Pressure", "pressure 0.91 at 12 requests/s is above 0.85")
    assert run.lines == ["Pressure: pressure 0.91 at 12 requests/s is above 0.85"]


def test_who_ends_the_run_is_not_told_what_that_does() -> None:
    run = Run()
    run.fleet.stopping = True
    run.place.record({}, "Warning", "NoNodeReady", "none of 1 nodes is ready")
    assert run.lines == []


class Machine(RuleBasedStateMachine):
    """Passes in any order with all that can happen to processes."""

    @initialize(most=st.integers(2, 4), data=st.data())
    def begin(self, most: int, data: st.DataObject) -> None:
        self.most = most
        self.wanted = data.draw(st.integers(1, most))
        self.run = Run(self.wanted, most)
        self.run.keep(self.wanted)

    @rule(share=st.floats(0, 1))
    def want(self, share: float) -> None:
        self.wanted = 1 + round(share * (self.most - 1))

    @rule(seconds=st.sampled_from([0.1, 1.0, SETTLE_S, DRAIN_S]))
    def time_passes(self, seconds: float) -> None:
        self.run.now_s = self.run.fleet.now_s = self.run.now_s + seconds

    @rule(index=st.integers(0, 3))
    def a_node_serves_or_dies(self, index: int) -> None:
        process = [*self.run.fleet.nodes.values()][index % len(self.run.fleet.nodes)]
        if process.serving:
            process.die()
        elif not process.leaving:
            process.serve()

    @rule()
    def nodes_end(self) -> None:
        for name in [name for name, each in self.run.fleet.nodes.items() if each.leaving]:
            self.run.fleet.end(name)

    @rule()
    def the_router_dies_and_is_back(self) -> None:
        assert self.run.fleet.router is not None
        self.run.fleet.router.die()
        self.run.fleet.router.serve()

    @rule()
    def keep(self) -> None:
        used = {name for name, node in self.run.channel.known.items() if not node.draining}
        serving = {name for name, each in self.run.fleet.nodes.items() if each.serving}
        self.run.fleet.stopped.clear()
        self.run.keep(self.wanted)
        assert not used & serving & {*self.run.fleet.stopped}

    @invariant()
    def no_more_nodes_than_the_machine_has_shares(self) -> None:
        if hasattr(self, "run"):
            assert len(self.run.fleet.nodes) <= self.most

    @invariant()
    def the_router_sends_to_nobody_that_never_served(self) -> None:
        if hasattr(self, "run"):
            known, nodes = self.run.channel.known, self.run.fleet.nodes
            assert all(nodes[name].served for name in known.keys() & nodes.keys())

    def teardown(self) -> None:
        if not hasattr(self, "run"):
            return
        for _ in range(6):
            self.nodes_end()
            for process in self.run.fleet.nodes.values():
                process.serve()
            self.time_passes(DRAIN_S)
            self.keep()
        assert len(self.run.fleet.nodes) == self.wanted
        assert self.run.channel.known.keys() == self.run.fleet.nodes.keys()
        assert not any(node.draining for node in self.run.channel.known.values())


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=30)
