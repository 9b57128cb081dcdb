"""What a node carries, by formulas whose values are known, and that pressure and feasibility follow from it."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lever_scenes
import plant
from drift_engine import wire
from drift_operator.driftservice import Slo
from drift_operator.levers import capacity, feasibility
from drift_operator.levers.attainment import Ledger, Length
from drift_operator.levers.capacity import Mix, Prompts, Way
from drift_operator.levers.demand import COUNTED_S, Demand, demand
from drift_operator.levers.feasibility import Verdict
from drift_operator.levers.load import load
from drift_operator.levers.observations import Node, Observation, Router

SLO = Slo.model_validate({"ttft": {"targetMs": 1000}, "tbt": {"targetMs": 50}})
FEASIBLE = Verdict(True)


def lane(
    *,
    token_s: float = 1e-4,
    pass_s: float = 0.0,
    row_s: float = 0.0,
    step_s: float = 0.0,
    contention: float = 1.0,
) -> wire.SplitCost:
    """A prompt of 1,000 tokens takes 100 ms."""
    return wire.SplitCost(8, 124, (0.0, 0.0, token_s, pass_s), (0.0, row_s, step_s), contention)


def mix(answer_tokens: float = 0.0, new_tokens: float = 1000.0) -> Mix:
    return Mix((Prompts(1.0, new_tokens),), 0.0, answer_tokens)


def slo(**ttft: Any) -> Slo:
    return Slo.model_validate({"ttft": {"targetMs": 1000, **ttft}, "tbt": {"targetMs": 50}})


def carried(
    cost: wire.SplitCost, asked: Mix, promise: Slo = SLO, *, nodes: int = 1, split: bool = True
) -> float:
    report = lever_scenes.gpu_report()
    return capacity.of_node(report, [Way(cost, split)], asked, promise, nodes).rate


def test_one_server_is_m_d_1_with_an_exponential_tail() -> None:
    """At 5 requests/s of 100 ms: E[W] = 50 ms by Pollaczek and Khinchine, P(W > 0) = 0.5."""
    found = capacity.use(Way(lane(), True), lever_scenes.gpu_report(), 5.0, mix(), SLO, 1)
    assert found.prefill == pytest.approx(0.5)
    assert found.ttft_kept == pytest.approx(1 - 0.5 * math.exp(-0.9 * 0.5 / 0.05))


def test_the_rate_is_where_the_promise_is_just_kept() -> None:
    way, report = Way(lane(), True), lever_scenes.gpu_report()
    rate = carried(way.cost, mix())
    assert 5.0 < rate < 10.0
    assert capacity.use(way, report, 0.99 * rate, mix(), SLO, 1).ttft_kept > 0.99
    assert capacity.use(way, report, 1.01 * rate, mix(), SLO, 1).ttft_kept < 0.99


def test_nodes_that_share_a_queue_carry_more_each() -> None:
    rates = [carried(lane(), mix(), nodes=count) for count in (1, 2, 8, 64)]
    assert rates == sorted(rates)
    assert rates[-1] < 10.0


def test_decode_rows_fit_under_the_target_and_into_memory() -> None:
    """47.5 ms for rows of 0.5 ms beside a step of 17.5 ms: 60 rows, each a token in 47.5 ms."""
    cost = lane(token_s=0.0, row_s=0.5e-3, step_s=17.5e-3)
    assert carried(cost, mix(answer_tokens=100)) == pytest.approx(60 / 0.0475 / 100)
    slower = msgspec.structs.replace(cost, contention=2.0)
    assert carried(slower, mix(answer_tokens=100)) == pytest.approx(12.5 / 0.0475 / 100)
    small = lever_scenes.gpu_report(kv_pages_total=1000, page_tokens=16)
    rows = 0.9 * 16_000 / 1050
    found = capacity.of_node(small, [Way(cost, split=True)], mix(answer_tokens=100), SLO, 1)
    assert found.rate == pytest.approx(rows / (rows * 0.5e-3 + 17.5e-3) / 100)


def test_a_device_that_is_not_split_takes_turns() -> None:
    """Half of every 47.5 ms goes to a step's constant: prefill has the other half, less what rows take."""
    cost = lane(row_s=1e-4, step_s=23.75e-3)
    found = capacity.throughput(lever_scenes.gpu_report(), [Way(cost, split=False)], mix(100), SLO)
    assert found == pytest.approx(0.5 / (0.1 + 100 * 1e-4))


def test_the_best_split_depends_on_the_mix() -> None:
    report = lever_scenes.gpu_report(mode=wire.Mode.MUX)
    ways = capacity.ways(report)
    promise = Slo.model_validate({"ttft": {"targetMs": 1000}, "tbt": {"targetMs": 20}})
    sms = [
        way.cost.decode_sms
        for answer in (10, 1000)
        if (way := capacity.of_node(report, ways, mix(answer, 4000), promise, 1).way) is not None
    ]
    assert sms[0] < sms[1]


def test_ways_are_those_of_the_mode_within_the_bounds() -> None:
    report = lever_scenes.gpu_report()
    assert len(capacity.ways(report)) == len(plant.costs()) + 1
    assert {way.cost.decode_sms for way in capacity.ways(report, (16, 32)) if way.split} == {16, 24, 32}
    assert [way.split for way in capacity.ways(lever_scenes.changed(report, mode=wire.Mode.FUSED))] == [False]
    assert all(way.split for way in capacity.ways(lever_scenes.changed(report, mode=wire.Mode.MUX)))
    assert capacity.ways(lever_scenes.changed(report, costs=(), whole=None)) == ()


costs = st.builds(
    lane,
    token_s=st.floats(0, 1e-2),
    pass_s=st.floats(0, 1.0),
    row_s=st.floats(0, 1e-2),
    step_s=st.floats(0, 0.2),
    contention=st.floats(1.0, 4.0),
)
mixes = st.builds(
    lambda prompts, reused, answers: Mix(
        tuple(Prompts(share / sum(s for s, _ in prompts), tokens) for share, tokens in prompts),
        reused,
        answers,
    ),
    st.lists(st.tuples(st.floats(0.01, 1.0), st.floats(1.0, 1e6)), min_size=1, max_size=4),
    st.floats(0, 1e5),
    st.floats(0, 1e5),
)


@settings(max_examples=100, deadline=None)
@given(costs, mixes, st.integers(1, 1000), st.booleans())
def test_capacities_are_numbers(cost: wire.SplitCost, asked: Mix, nodes: int, split: bool) -> None:
    rate = carried(cost, asked, nodes=nodes, split=split)
    assert 0.0 <= rate < math.inf
    found = capacity.use(Way(cost, split), lever_scenes.gpu_report(), rate, asked, SLO, nodes)
    assert 0.0 <= found.ttft_kept <= 1.0
    assert not math.isnan(found.prefill)
    assert not math.isnan(found.decode)


@settings(max_examples=50, deadline=None)
@given(costs, mixes, st.floats(1.1, 10.0))
def test_a_slower_node_carries_no_more(cost: wire.SplitCost, asked: Mix, by: float) -> None:
    a, b, c, d = (by * value for value in cost.prefill_s)
    x, y, z = (by * value for value in cost.decode_s)
    slower = msgspec.structs.replace(cost, prefill_s=(a, b, c, d), decode_s=(x, y, z))
    assert carried(slower, asked) <= carried(cost, asked) * (1 + 1e-3)


# demand -----------------------------------------------------------------------------------------------------


def ledger(seconds: int, per_s: int, *, router: str = "r", **changes: Any) -> tuple[Ledger, Router]:
    made = Ledger.empty(SLO, 0.0)
    found = lever_scenes.router(router)
    for second in range(seconds + 1):
        found = lever_scenes.router(router, prompts=(per_s * second, 0), **changes)
        made = made.observe([found], float(second))
    return made, found


def test_the_rate_is_that_of_the_last_half_minute_with_what_was_refused_or_waits() -> None:
    made, router = ledger(60, 5)
    found = demand(made, Observation((), (router,)), 60.0)
    assert found is not None
    assert found.rate == pytest.approx(5.0, rel=0.05)
    assert found.mix.prompts == (Prompts(1.0, 1000.0),)
    queued = Router("r", router.totals, queue_depth=60)
    waiting = demand(made, Observation((), (queued,)), 60.0)
    assert waiting is not None
    assert waiting.rate == pytest.approx(found.rate + 2.0)


def test_too_little_or_an_unknown_router_is_no_demand() -> None:
    made, router = ledger(int(COUNTED_S) - 1, 5)
    assert demand(made, Observation((), (router,)), COUNTED_S - 1) is None
    made, router = ledger(60, 5)
    unknown = Router("q", problem="no answer")
    assert demand(made, Observation((), (router, unknown)), 60.0) is None
    assert demand(made, Observation(()), 60.0) is None


def test_answers_that_nobody_counted_are_seen_by_the_nodes() -> None:
    made, router = ledger(60, 5)
    nodes = lever_scenes.nodes(2, running=10, tbt_p50_ms=20.0)
    found = demand(made, Observation(nodes, (router,)), 60.0)
    assert found is not None
    assert found.mix.answer_tokens == pytest.approx(1000 / found.rate)


# load -------------------------------------------------------------------------------------------------------


def asked(rate: float, *prompts: Prompts, answers: float = 100.0) -> Demand:
    found = prompts or (Prompts(1.0, 1000.0),)
    return Demand(rate, Mix(found, 0.0, answers), tuple(float(index) for index in range(len(found))))


def test_pressure_is_demand_over_what_the_nodes_carry() -> None:
    service = lever_scenes.service()
    one = load(asked(10.0), lever_scenes.nodes(1), FEASIBLE, service)
    four = load(asked(40.0), lever_scenes.nodes(4), FEASIBLE, service)
    assert one is not None
    assert four is not None
    assert one.pressure == pytest.approx(10.0 / one.per_node)
    assert four.pressure < one.pressure  # they share a queue
    assert four.fewer == pytest.approx(4 / 3 * four.pressure, rel=0.1)
    assert one.fewer == 100.0


def test_mixed_nodes_carry_what_each_can() -> None:
    service = lever_scenes.service()
    slow = {"costs": (), "whole": lane(token_s=1e-4, step_s=0.01), "mode": wire.Mode.FUSED}
    nodes = (lever_scenes.node("a"), lever_scenes.node("b", **slow, in_flight=9))
    fast, both = (load(asked(10.0), some, FEASIBLE, service) for some in (nodes[:1], nodes))
    assert fast is not None
    assert both is not None
    assert 0.5 * fast.per_node < both.per_node < fast.per_node
    assert both.fewer > 1.3 * both.pressure  # the idle one would leave, which is the fast one


def test_an_unknown_node_is_taken_for_what_others_are() -> None:
    service = lever_scenes.service()
    known = lever_scenes.nodes(2)
    unknown = Node("z", ready=True)
    two = load(asked(10.0), known, FEASIBLE, service)
    three = load(asked(10.0), (*known, unknown), FEASIBLE, service)
    assert two is not None
    assert three is not None
    assert three.pressure < two.pressure
    assert load(asked(10.0), (unknown,), FEASIBLE, service) is None


def test_no_requests_are_no_pressure_and_an_unknown_mix_is_unknown() -> None:
    service = lever_scenes.service()
    found = load(Demand(0.0, Mix(())), lever_scenes.nodes(1), FEASIBLE, service)
    assert found is not None
    assert found.pressure == 0.0
    assert load(Demand(3.0, Mix(())), lever_scenes.nodes(1), FEASIBLE, service) is None


def test_infeasible_requests_are_no_pressure_but_take_time() -> None:
    service = lever_scenes.service()
    wanted = asked(20.0, Prompts(0.5, 500.0), Prompts(0.5, 30_000.0))
    verdict = Verdict(False, frozenset({1.0}))
    found = load(wanted, lever_scenes.nodes(2), verdict, service)
    assert found is not None
    assert found.rate == pytest.approx(10.0)
    assert found.pressure < 0.3
    assert found.throughput > 5.0


def test_bounds_of_the_spec_bound_the_best_split() -> None:
    narrow = lever_scenes.service(
        {"multiplexing": {"decodeSMs": {"min": 8, "max": 16}}, "slo": {"tbt": {"targetMs": 15}}}
    )
    wide = lever_scenes.service({"slo": {"tbt": {"targetMs": 15}}})
    nodes = lever_scenes.nodes(1, mode=wire.Mode.MUX)
    found = [load(asked(5.0, answers=1000.0), nodes, FEASIBLE, service) for service in (narrow, wide)]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0].pressure > 1.5 * found[1].pressure
    assert found[0].decode_sms in (8, 16, None)


# feasibility ------------------------------------------------------------------------------------------------


def judged(
    promise: Slo,
    lengths: dict[float, Length],
    before: Verdict = FEASIBLE,
    whole: wire.SplitCost | None = None,
) -> Verdict:
    reports = [lever_scenes.gpu_report(whole=whole or lane(pass_s=0.01, step_s=0.01), costs=())]
    return feasibility.judge(reports, lengths, 0.0, promise, before)


def test_a_promise_below_the_shortest_prompt_is_infeasible() -> None:
    found = judged(slo(targetMs=1), {})
    assert (found.feasible, found.helped(512.0), found.decode) == (False, False, True)
    assert found.message == "a prompt of 1 token takes 10 ms alone on an empty node; the promise is 1 ms"


def test_too_many_long_prompts_are_infeasible() -> None:
    """12,000 tokens take 1.2 s of 1 s."""
    lengths = {512.0: Length(980, 98_000), 32768.0: Length(20, 240_000)}
    found = judged(slo(), lengths)
    assert found.feasible is False
    assert found.lengths == {32768.0}
    assert (found.helped(512.0), found.helped(32768.0)) == (True, False)
    assert (
        "a prompt of 12000 tokens takes 1200 ms alone on an empty node; the promise is 1000 ms"
        in found.message
    )
    assert "2 % of the requests are as long, 1 % may miss it" in found.message


def test_few_long_prompts_may_miss() -> None:
    found = judged(slo(), {512.0: Length(995, 98_000), 32768.0: Length(5, 60_000)})
    assert found.feasible is True
    assert found.lengths == {32768.0}


def test_a_promise_per_token_is_held_to_long_prompts() -> None:
    found = judged(slo(perTokenMs=0.1), {32768.0: Length(10, 120_000)})
    assert (found.feasible, found.lengths) == (True, frozenset())


def test_a_step_longer_than_the_target_is_infeasible() -> None:
    found = judged(SLO, {512.0: Length(10, 1000)}, whole=lane(step_s=0.06))
    assert (found.feasible, found.decode, found.helped(512.0)) == (False, False, False)
    assert "a token takes 60 ms alone on an empty node" in found.message


def test_the_fastest_node_decides_and_nothing_known_is_unknown() -> None:
    slow, fast = lane(pass_s=5.0), lane(pass_s=0.01)
    reports = [lever_scenes.gpu_report(whole=whole, costs=()) for whole in (slow, fast)]
    assert feasibility.judge(reports, {}, 0.0, SLO, Verdict()).feasible is True
    assert feasibility.judge(reports[:1], {}, 0.0, SLO, Verdict()).feasible is False
    unknown = [lever_scenes.gpu_report(whole=None, costs=())]
    assert feasibility.judge(unknown, {}, 0.0, SLO, Verdict()).feasible is None


def test_feasibility_does_not_flutter() -> None:
    """A speed that is learned anew with every pass, around the target."""
    verdict, changes = Verdict(), 0
    for step in range(100):
        now = judged(
            slo(targetMs=400), {}, verdict, lane(pass_s=0.4 * (1.01 if step % 2 else 0.99), token_s=0.0)
        )
        changes += verdict.feasible is not None and now.feasible != verdict.feasible
        verdict = now
    assert changes <= 1
