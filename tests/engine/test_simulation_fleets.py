"""Simulated nodes that come, leave and die, and requests that go over two of them."""

from __future__ import annotations

import functools
import itertools
import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sim_core
from drift_engine import wire
from drift_engine.bench.records import RequestRecord
from drift_engine.bench.traces import Arrival
from drift_engine.latency.loads import Load
from drift_engine.latency.snapshots import Snapshot
from drift_engine.simulation import dispatching, nodes, running
from drift_engine.simulation.handing_on import Link
from drift_engine.simulation.running import Simulation

SPEC = sim_core.SPEC
LINK = Link(bytes_per_s=1e9, latency_s=0.002, kv_bytes_per_token=40_000, layers=4)


@pytest.fixture(scope="module")
def latency() -> Snapshot:
    return nodes.calibrated(SPEC)


def arrival(
    index: int, at_s: float, prompt: int = 100, output: int = 10, session: str | None = None
) -> Arrival:
    return Arrival(
        index,
        at_s,
        prompt,
        output,
        block_ids=(100_000 * (index + 1),),
        block_tokens=prompt,
        session=session,
    )


def workload(seed: int, count: int = 30, rate: float = 10.0) -> list[Arrival]:
    dice, at_s, made = random.Random(seed), 0.0, []
    for index in range(count):
        session = dice.choice([None, None, "a", "b"])
        made.append(arrival(index, at_s, dice.randint(2, 600), dice.randint(1, 80), session))
        at_s += dice.expovariate(rate)
    return made


def of(records: list[RequestRecord], index: int) -> RequestRecord:
    return next(record for record in records if record.index == index)


def add(simulation: Simulation, now_s: float, start_up_s: float = 0.0) -> None:
    simulation.add(now_s, start_up_s)


Deed = tuple[float, str, int]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    deeds=st.lists(
        st.tuples(st.floats(0.0, 6.0), st.sampled_from(["add", "drain", "fail"]), st.integers(0, 5)),
        max_size=8,
    ),
    routing=st.sampled_from(dispatching.names()),
    mode=st.sampled_from([wire.Mode.FUSED, wire.Mode.MUX]),
    link=st.sampled_from([None, LINK]),
)
def test_every_request_ends_exactly_once_whatever_nodes_do(
    seed: int, deeds: list[Deed], routing: str, mode: wire.Mode, link: Link | None
) -> None:
    arrivals = workload(seed)
    found = [meddled(arrivals, deeds, routing, mode, link) for _ in range(2)]
    assert found[0] == found[1]
    assert sorted(record.index for record in found[0]) == list(range(len(arrivals)))
    for record in found[0]:
        asked = arrivals[record.index]
        if record.status == "failed":
            assert record.reason == "no node took it"
            assert record.end_s >= running.PATIENCE_S - 1e-6
            continue
        assert record.output_tokens == len(record.token_times_s) == asked.output_tokens
        assert all(before < after for before, after in itertools.pairwise(record.token_times_s))


@functools.cache
def learned(mode: wire.Mode) -> Snapshot:
    return nodes.calibrated(msgspec.structs.replace(SPEC, mode=mode))


def meddled(
    arrivals: list[Arrival], deeds: list[Deed], routing: str, mode: wire.Mode, link: Link | None
) -> list[RequestRecord]:
    spec = msgspec.structs.replace(SPEC, mode=mode)
    simulation = Simulation(spec, learned(mode), nodes=2, routing=routing, link=link)

    def do(what: str, index: int, now_s: float) -> None:
        if what == "add":
            simulation.add(now_s)
        elif index in simulation.alive:
            getattr(simulation, what)(index, now_s)

    for at_s, what, index in deeds:
        simulation.at(at_s, lambda now_s, what=what, index=index: do(what, index, now_s))  # type: ignore[misc]
    return simulation.run(arrivals)


def test_an_answer_whose_node_died_goes_on_behind_what_its_client_has(latency: Snapshot) -> None:
    simulation = Simulation(SPEC, latency, nodes=2, routing="round-robin")
    simulation.at(0.5, lambda now_s: simulation.fail(0, now_s))
    one, other = (
        of(simulation.run([arrival(0, 0.0, 1000, 200), arrival(1, 0.0, 20, 2)]), index) for index in (0, 1)
    )
    before = [time_s for time_s in one.token_times_s if time_s <= 0.5]
    after = [time_s for time_s in one.token_times_s if time_s > 0.5]
    assert len(before) > 1
    assert len(before) + len(after) == 200
    # All of the prompt and of the answer so far is computed again, on the other node.
    again_s = sim_core.TIMING.pass_s(Load.prefill([(1000 + len(before), 0)]), SPEC.sms)
    assert after[0] == pytest.approx(0.5 + again_s, rel=0.05)
    assert max(after[index + 1] - after[index] for index in range(len(after) - 1)) < again_s
    assert (one.status, other.status) == ("ok", "ok")


def test_requests_wait_for_a_node_and_not_for_ever(latency: Snapshot) -> None:
    simulation = Simulation(SPEC, latency, nodes=1)
    simulation.at(1.0, lambda now_s: simulation.fail(0, now_s))
    simulation.at(40.0, lambda now_s: add(simulation, now_s))
    records = simulation.run([arrival(0, 2.0), arrival(1, 20.0), arrival(2, 50.0)])
    assert [(record.index, record.status) for record in records] == [(0, "failed"), (1, "ok"), (2, "ok")]
    assert (of(records, 0).end_s, of(records, 0).reason) == (30.0, "no node took it")
    assert of(records, 1).token_times_s[0] > 20.0


def test_a_node_that_leaves_answers_what_it_has(latency: Snapshot) -> None:
    simulation = Simulation(SPEC, latency, nodes=2, routing="round-robin")
    simulation.at(0.5, lambda now_s: simulation.drain(0, now_s))
    records = simulation.run(
        [arrival(0, 0.0, 100, 300), *(arrival(index, 0.5 + index) for index in (1, 2, 3))]
    )
    assert {record.status for record in records} == {"ok"}
    assert list(simulation.alive) == [1]
    assert simulation.gone_s[0] == pytest.approx(of(records, 0).end_s)


def test_node_seconds_begin_with_the_making_and_end_with_the_node(latency: Snapshot) -> None:
    simulation = Simulation(SPEC, latency, nodes=2)
    simulation.at(4.0, lambda now_s: simulation.fail(1, now_s))
    simulation.at(6.0, lambda now_s: add(simulation, now_s, 5.0))
    records = simulation.run([arrival(0, 0.0), arrival(1, 10.0)])
    end_s = max(record.due_s + record.end_s for record in records)
    assert simulation.node_s() == pytest.approx(end_s + 4.0 + (end_s - 1.0))


def test_a_request_that_is_handed_on_pays_for_the_way_and_not_for_its_prompt(latency: Snapshot) -> None:
    simulation = Simulation(SPEC, latency, nodes=2, routing="round-robin", link=LINK)
    (record,) = simulation.run([arrival(0, 0.0, 1921, 3)])  # 30 pages and one token
    first, second, _ = record.token_times_s
    way_s = 0.002 + 1921 * 10_000 / 1e9
    rest_s = sim_core.TIMING.pass_s(Load.prefill([(2, 1920)]), SPEC.sms)
    assert first == pytest.approx(sim_core.TIMING.pass_s(Load.prefill([(1921, 0)]), SPEC.sms))
    assert second - first == pytest.approx(way_s + rest_s, rel=0.05)
    assert record.cached_tokens == 0
    assert [node.stats.generation_tokens_total for node in simulation.nodes if node.stats] == [1, 2]
