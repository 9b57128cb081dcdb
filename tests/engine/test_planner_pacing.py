"""When a first token is told, and single steps that leave the split: decisions, and the core in virtual time."""

from __future__ import annotations

import itertools
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_engine import wire
from drift_engine.latency.costs import Costs, DecodeCost, PrefillCost
from drift_engine.latency.loads import Load
from drift_engine.scheduling import pacing, planner, splits
from drift_engine.scheduling.pacing import Step
from drift_engine.scheduling.views import Cut, State
from planner_pictures import LAYERS, SPLITS, Speeds, Unknown, decoding, lanes, new, state
from virtual_core import VirtualCore

# who waits --------------------------------------------------------------------------------------------------

TARGET_S = 0.08


@pytest.mark.parametrize(
    ("step", "deadline_s", "expected"),
    [
        (Step(ends_s=1.03, step_s=0.06), 2.0, True),  # a gap of 90 ms if told now
        (Step(ends_s=1.03, step_s=0.04), 2.0, False),  # 70 ms are no more than the target
        (Step(ends_s=1.03, step_s=0.06), 1.02, False),  # TTFT would break
        (Step(ends_s=1.03, step_s=0.06), 1.03, True),  # it is kept to the moment
        (Step(ends_s=0.90, step_s=0.06), 2.0, False),  # overdue: it may end at any moment
        (Step(ends_s=0.90, step_s=0.09), 2.0, True),  # a step of its own breaks the target alone
        (Step(ends_s=1.03, step_s=0.0), 2.0, False),  # nothing is known
        (None, 2.0, False),  # nothing decodes
    ],
)
def test_a_first_token_waits_where_its_gap_would_break_the_target(
    step: Step | None, deadline_s: float, expected: bool
) -> None:
    assert pacing.waits(step, deadline_s, TARGET_S, 1.0) is expected


times_s = st.floats(0.0, 10.0)


@given(
    ends_s=times_s,
    step_s=st.floats(0.0, 1.0),
    deadline_s=times_s,
    target_s=st.floats(0.001, 1.0),
    now_s=times_s,
)
def test_waiting_breaks_no_ttft_target_and_is_never_in_vain(
    ends_s: float, step_s: float, deadline_s: float, target_s: float, now_s: float
) -> None:
    if pacing.waits(Step(ends_s, step_s), deadline_s, target_s, now_s):
        assert ends_s <= deadline_s
        assert max(0.0, ends_s - now_s) + step_s > target_s


# what is told when ------------------------------------------------------------------------------------------


def speeds(sms: int) -> Costs:
    """On 4 SMs 100 tokens are prefilled in 25 ms; a decode step takes 50 ms on any part."""
    return Costs(PrefillCost(0.0, 0.0, 1e-3 / sms, 0.0), DecodeCost(0.0, 0.0, 0.05))


def submit(
    name: str, arrival_s: float, tokens: int, answer_tokens: int, *, ttft_ms: float | None = None
) -> wire.Submit:
    sampling = wire.Sampling(max_tokens=answer_tokens, ignore_eos=True)
    prompt = [ord(name[0])] * tokens
    return wire.Submit(name, prompt, sampling, arrival_s, wire.Slo(ttft_ms=ttft_ms))


def core(prompt: wire.Submit, *others: wire.Submit) -> VirtualCore:
    """The prompt comes in a decode step, and its prefill begins with the next one, on three of the SMs. One of 30
    tokens is done after 10 ms of that step's 50: told then, its gap would be 90 ms, and 85 are promised."""
    answering = submit("d", 0.0, 4, 40)
    targets = wire.Targets(400.0, 0.0, 85.0)
    return VirtualCore([answering, prompt, *others], wire.Mode.MUX, speeds, targets=targets)


def near(time_s: float, times: list[float]) -> bool:
    return any(time_s == pytest.approx(other_s, abs=1e-6) for other_s in times)


def test_a_first_token_that_would_break_the_tbt_target_is_told_with_the_step_at_work() -> None:
    times = core(submit("p", 0.206, 30, 5)).run()
    assert near(times["p"][0], times["d"])
    assert max(b - a for a, b in itertools.pairwise(times["p"])) <= 0.085


@pytest.mark.parametrize(("ttft_ms", "held"), [(70.0, False), (400.0, True)])
def test_a_first_token_whose_ttft_would_break_is_told_at_once(ttft_ms: float, held: bool) -> None:
    prompt = submit("p", 0.206, 30, 5, ttft_ms=ttft_ms)
    times = core(prompt).run()
    assert near(times["p"][0], times["d"]) is held
    assert (times["p"][0] - prompt.arrival_s <= 0.07) is not held
    assert (times["p"][1] - times["p"][0] <= 0.085) is held


def test_a_token_that_would_keep_its_gap_is_told_at_once() -> None:
    prompt = submit("p", 0.206, 144, 5)  # is done after 48 ms of the step, which is predicted with a margin
    times = core(prompt).run()
    assert not near(times["p"][0], times["d"])
    assert times["p"][1] - times["p"][0] <= 0.085


def test_an_answer_of_one_token_is_never_held() -> None:
    held, at_once = core(submit("p", 0.206, 30, 5)).run(), core(submit("p", 0.206, 30, 1)).run()
    assert not near(at_once["p"][0], at_once["d"])
    assert at_once["p"][0] < held["p"][0]


def test_a_request_that_is_cancelled_while_its_token_is_held_tells_nothing() -> None:
    virtual = core(submit("p", 0.206, 30, 5))
    requests = virtual.core.requests
    while "p" not in requests or not requests["p"].drawn_tokens:
        virtual.core.step()
    virtual.channel.cancel("p")
    virtual.submits = [one for one in virtual.submits if one.request_id != "p"]
    times = virtual.run()
    assert len(times["d"]) == 40
    assert not [output for _, output in virtual.channel.told if output.request_id == "p"]
    virtual.core.step()
    assert virtual.cache.pages_held == 0
    virtual.cache.check_integrity()


def test_a_held_token_is_told_once_and_before_those_behind_it() -> None:
    virtual = core(*(submit(f"p{index}", 0.206 + 0.3 * index, 30, 5) for index in range(4)))
    times = virtual.run()
    for name, found in times.items():
        assert len(found) == (40 if name == "d" else 5)
        assert found == sorted(found)
        assert len(set(found)) == len(found)


# steps that leave the split ---------------------------------------------------------------------------------

SHARED = Speeds(0.2, 0.001, saturated=8)
"""A decode step takes 200 ms / SMs: three of them keep 80 ms."""


def pictured(due_s: float) -> State:
    return state(
        waiting=(new("p", 300),),
        running=(decoding("d", 9, due_s=due_s),),
        lanes=lanes(split=wire.Split(3, 5)),
        min_dwell_s=9.0,
    )


@pytest.mark.parametrize(
    ("allowed_s", "base", "expected"),
    [
        (0.080, 3, 3),
        (0.070, 3, 4),  # 67 ms fill more than 95 % of it
        (0.045, 3, 5),
        (0.001, 3, 7),  # none keeps it: the most
        (0.400, 3, 3),  # never fewer
    ],
)
def test_a_step_in_a_hurry_takes_more_sms(allowed_s: float, base: int, expected: int) -> None:
    found = splits.urgent(
        pictured(0.08), SPLITS[base - 1], Load.decode(1, 10), allowed_s, Load.prefill([(300, 0)]), SHARED
    )
    assert found.decode_sms == expected


def test_a_step_in_a_hurry_takes_its_split_where_nothing_is_known() -> None:
    found = splits.urgent(
        pictured(0.08), SPLITS[2], Load.decode(1, 10), 0.001, Load.prefill([(300, 0)]), Unknown()
    )
    assert found == SPLITS[2]


def test_one_step_departs_from_the_split_and_the_next_returns() -> None:
    hurried = planner.plan(wire.Mode.MUX, pictured(0.045), SHARED, 0.0)
    assert (hurried.split, hurried.base) == (wire.Split(5, 3), wire.Split(3, 5))
    following = planner.plan(wire.Mode.MUX, pictured(0.145), SHARED, 0.065)  # the dwell has not passed
    assert following.split == following.base == wire.Split(3, 5)


def test_rows_that_are_in_a_hurry_for_good_move_the_split() -> None:
    tight = msgspec.structs.replace(decoding("d", 9), tbt_target_s=0.045, due_s=0.045)
    plan = planner.plan(wire.Mode.MUX, replace(pictured(0.08), running=(tight,)), SHARED, 0.0)
    assert plan.split == plan.base == wire.Split(5, 3)


def test_a_departure_is_for_one_step() -> None:
    cut = Cut(Load.prefill([(300, 0)]), 0.4, 1.6, SPLITS[2], LAYERS, launched=3, done=3)
    for due_s, steps in ((0.045, 1), (0.08, 4)):
        picture = state(
            running=(msgspec.structs.replace(decoding("d", 9, due_s=due_s), blind_tokens=9),),
            lanes=lanes(cut=cut, split=SPLITS[2]),
            in_flight=1,
            min_dwell_s=9.0,
        )
        picture = replace(picture, limits=replace(picture.limits, lookahead_steps=4))
        assert planner.plan(wire.Mode.MUX, picture, SHARED, 0.0).steps == steps


def hasty(sms: int) -> Costs:
    """A decode step takes 80 ms on one SM of 8, 40 on two, 10 on all; 100 tokens are prefilled in 12."""
    return Costs(PrefillCost(0.0, 0.0, 1e-3 / sms, 0.0), DecodeCost(0.0, 0.0, 0.08 / sms))


def test_the_core_returns_to_its_split_behind_a_step_in_a_hurry() -> None:
    """A first token that is told at once, in the middle of a step, leaves less than the usual time for the next."""
    requests = [submit("d", 0.0, 4, 60), submit("l", 0.2, 8192, 2)]
    requests += [submit(f"p{index}", 0.3 + 0.137 * index, 24, 3, ttft_ms=35.0) for index in range(6)]
    targets = wire.Targets(4000.0, 0.0, 60.0)
    virtual = VirtualCore(requests, wire.Mode.MUX, hasty, targets=targets, sms=8, max_step_tokens=256)
    virtual.run()
    parts = [
        int(span.lane.removeprefix("decode-"))
        for span in virtual.core.spans
        if span.lane.startswith("decode-")
    ]
    base = parts[0]
    departures = [index for index, sms in enumerate(parts) if sms != base]
    assert len(departures) == 6
    for index in departures:
        assert parts[index] > base
        assert parts[index + 1] == base
