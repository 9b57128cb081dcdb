"""Router and levers on simulated nodes, in virtual time: whole services, as `drift simulate` makes them."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from drift_cli import systems
from drift_cli.steering import Levers
from drift_cli.systems import Loss, System
from drift_engine import wire
from drift_engine.bench import shaping
from drift_engine.bench.results import Slo, Workload
from drift_engine.bench.traces import Arrival
from drift_engine.simulation.studies import Outcome, Study
from drift_router.snapshots import Policy

SLO = Slo(ttft_ms=500, tbt_ms=25, attainment_target=0.95)
WORKLOAD = Workload(trace="", format="synthetic", arrivals="poisson")


def load(rate: float, requests: int, prompt_tokens: int = 4000) -> list[Arrival]:
    return list(
        shaping.poisson(
            rate_rps=rate, requests=requests, prompt_tokens=prompt_tokens, output_tokens=40, seed=3
        )
    )


def conversations(count: int, turns: int, seconds: float) -> list[Arrival]:
    """Each turn's prompt is the one before and 400 tokens more."""
    made = []
    for index in range(count * turns):
        one, turn = index % count, index // count
        blocks = tuple(one * 1000 + number for number in range(4 * (turn + 1)))
        at_s = seconds * turn + seconds * (one * 7919 % count) / count
        made.append(Arrival(index, at_s, 512 * len(blocks), 8, block_ids=blocks, block_tokens=512))
    return made


def run(arrivals: list[Arrival], **fields: Any) -> tuple[Outcome, systems.Account]:
    nodes = fields.get("nodes", 1)
    system = System(slo=SLO, **fields)
    study = Study(
        arrivals=arrivals,
        workload=WORKLOAD,
        slo=SLO,
        model="llama-8b",
        hardware="h200",
        nodes=nodes,
        mode=fields.get("mode", wire.Mode.AUTO),
        dispatcher=system.dispatcher,
        attach=system.attach,
    )
    outcome = study.run()
    moved = fields.get("moved", Levers.OFF)
    told = systems.told(outcome.result, moved, system.account)
    return msgspec.structs.replace(outcome, result=told), system.account


def test_nodes_are_added_for_a_load_that_needs_them_and_serve_after_their_start() -> None:
    arrivals = load(14.0, 500)
    alone, _ = run(arrivals)
    steered, account = run(arrivals, moved=Levers.ALL, max_nodes=4, start_up_s=2.0)
    assert (alone.result.attainment or 0) < 0.5 < (steered.result.attainment or 0)
    assert (steered.result.nodes_least, alone.result.nodes_most) == (1, 1)
    assert 2 <= (steered.result.nodes_most or 0) <= 4
    first = next(one for one in account.decisions if one.lever == "replicas")
    assert account.counts[1][0] == pytest.approx(first.at_s + 2.0)
    assert (steered.result.gpu_s or 0) > (alone.result.window_s)


def test_a_node_that_died_is_replaced_where_the_levers_count_nodes() -> None:
    arrivals = load(2.0, 120, 1000)
    losses = [Loss(20.0)]
    fixed, account = run(arrivals, nodes=2, losses=losses)
    assert [count for _, count in account.counts] == [2, 1]
    replaced, account = run(arrivals, nodes=2, moved=Levers.ALL, start_up_s=5.0, losses=losses)
    assert [count for _, count in account.counts] == [2, 1, 2]
    assert account.counts[2][0] == pytest.approx(25.0, abs=1.01)
    for outcome in (fixed, replaced):
        assert (outcome.result.requests, outcome.result.failed) == (120, 0)


def test_only_the_levers_that_were_asked_for_are_moved() -> None:
    arrivals = load(9.0, 300)
    for moved, allowed in (
        (Levers.OFF, set()),
        (Levers.SPLIT, {"split"}),
        (Levers.SPLIT_WEIGHTS, {"split", "weight"}),
    ):
        outcome, account = run(arrivals, nodes=2, moved=moved, mode=wire.Mode.MUX)
        assert set(account.moves) <= allowed
        assert {one.lever for one in account.decisions} <= allowed
        assert outcome.result.levers == moved.value


def test_the_same_question_has_the_same_answer() -> None:
    asked: dict[str, Any] = {"moved": Levers.ALL, "nodes": 2, "max_nodes": 4, "losses": [Loss(8.0)]}
    (one, first), (other, second) = (run(load(8.0, 150), **asked) for _ in range(2))
    assert one.records == other.records
    assert (first.decisions, first.counts) == (second.decisions, second.counts)


def test_who_knows_the_caches_computes_least_and_who_looks_at_nothing_most() -> None:
    arrivals = conversations(11, 6, 6.0)
    cached = {policy: run(arrivals, nodes=4, policy=policy)[0].result.cached_tokens or 0 for policy in Policy}
    best = max(cached.values())
    assert cached[Policy.CACHE_AWARE] >= 0.97 * best
    assert cached[Policy.ROUND_ROBIN] < 0.8 * best
    assert cached[Policy.PREFIX_HASH] > cached[Policy.LEAST_LOAD]


def test_a_router_keeps_count_of_its_decisions_and_of_its_index() -> None:
    _, account = run(conversations(6, 3, 2.0), nodes=3)
    assert account.routed == 18
    assert account.index_bytes > 0
    assert account.routing_cpu_s > 0


@pytest.mark.parametrize(
    ("text", "loss"), [("60", Loss(60.0)), ("2.5:3", Loss(2.5, 3)), ("0:0", Loss(0.0, 0))]
)
def test_losses_are_read(text: str, loss: Loss) -> None:
    assert systems.read_loss(text) == loss


@pytest.mark.parametrize("text", ["", "x", "1:", "1:x", "-1", "inf", "nan", "1:-1"])
def test_what_is_no_loss_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(text))):
        systems.read_loss(text)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"max_nodes": 3}, "--max-nodes needs --levers all"),
        ({"nodes": 3, "max_nodes": 2, "moved": Levers.ALL}, "--max-nodes: 2 is not between 3 and 1000"),
        ({"start_up_s": -1.0}, "--start-up: -1 is no time"),
        ({"losses": [Loss(1.0, 1)]}, "--fail-node-at: node 1 is not among 1 nodes"),
        ({"moved": Levers.SPLIT, "slo": Slo(ttft_ms=500)}, "--levers needs a promise of both"),
        (
            {"moved": Levers.SPLIT, "slo": Slo(ttft_ms=0.5, tbt_ms=20)},
            "--slo-ttft-ms: with --levers 0.5 is no whole number of ms",
        ),
        (
            {"moved": Levers.SPLIT, "slo": Slo(ttft_ms=5, tbt_ms=20, attainment_target=1.0)},
            "--attainment: with --levers 1 is not between 0.5 and 0.9999",
        ),
    ],
)
def test_what_cannot_be_is_said(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        System(**{"slo": SLO, **fields})
