"""What the planner decides, from pictures of requests and memory."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from drift_engine import wire
from drift_engine.latency.loads import Load
from drift_engine.scheduling import fused, order, planner, splits
from drift_engine.scheduling.predictions import Predictions
from drift_engine.scheduling.views import Cut, Flight, Running, State, Waiting
from planner_pictures import LAYERS, SPLITS, Speeds, Unknown, decoding, lanes, new, state


def test_fused_serves_decodes_and_a_chunk_in_one_pass() -> None:
    plan = planner.plan(
        wire.Mode.FUSED,
        state(waiting=(new("p", 300),), running=(decoding("d", 9),), chunk_tokens=64),
        Unknown(),
        0.0,
    )
    assert plan.decode == ("d",)
    assert plan.admit == ("p",)
    assert [(chunk.request_id, chunk.tokens) for chunk in plan.prefill] == [("p", 63)]


def test_prefill_first_leaves_decodes_waiting_while_a_prompt_is_there() -> None:
    plan = planner.plan(
        wire.Mode.PREFILL_FIRST,
        state(waiting=(new("p", 300),), running=(decoding("d", 9),)),
        Unknown(),
        0.0,
    )
    assert plan.decode == ()
    assert plan.prefill[0].tokens == 300


def test_the_chunk_fills_what_the_tbt_target_leaves() -> None:
    latency = Speeds(0.02, 0.0005)
    plan = planner.plan(
        wire.Mode.FUSED, state(waiting=(new("p", 300),), running=(decoding("d", 9),)), latency, 0.0
    )
    # 80 ms * 0.9 - 20 ms = 52 ms, at 0.5 ms a token
    assert plan.prefill[0].tokens == pytest.approx(104, abs=2)


def test_prefill_moves_even_when_the_target_can_not_be_met() -> None:
    latency = Speeds(0.2, 0.01)
    plan = planner.plan(
        wire.Mode.FUSED, state(waiting=(new("p", 300),), running=(decoding("d", 9),)), latency, 0.0
    )
    assert plan.prefill[0].tokens == fused.MIN_CHUNK_TOKENS


def test_without_decodes_the_chunk_is_as_large_as_a_step_may_be() -> None:
    plan = planner.plan(wire.Mode.FUSED, state(waiting=(new("p", 1000),)), Unknown(), 0.0)
    assert plan.prefill[0].tokens == 512


def test_cached_tokens_are_not_computed_again() -> None:
    plan = planner.plan(wire.Mode.FUSED, state(waiting=(new("p", 100, cached=96),)), Unknown(), 0.0)
    assert plan.prefill[0].tokens == 4


def test_the_latest_of_the_lowest_priority_is_preempted() -> None:
    running = (
        decoding("old", 8, arrival_s=1.0),
        decoding("important", 8, arrival_s=3.0, priority=1),
        decoding("late", 8, arrival_s=2.0),
    )
    plan = planner.plan(wire.Mode.FUSED, state(running=running, free=2), Unknown(), 0.0)
    assert plan.preempt == ("late",)
    assert plan.decode == ("old", "important")


def test_nobody_is_admitted_into_a_full_cache() -> None:
    plan = planner.plan(
        wire.Mode.FUSED,
        state(waiting=(new("p", 40),), running=(decoding("d", 7),), free=10),
        Unknown(),
        0.0,
    )
    assert plan.admit == ()


def test_pages_that_others_hold_need_no_room() -> None:
    crowded = (decoding("d", 39),)
    for idle, admitted in ((10, ()), (0, ("p",))):
        plan = planner.plan(
            wire.Mode.FUSED,
            state(waiting=(new("p", 44, cached=40, idle=idle),), running=crowded, free=5),
            Unknown(),
            0.0,
        )
        assert plan.admit == admitted


def test_a_request_behind_one_that_does_not_fit_waits_too() -> None:
    waiting = (new("large", 400, arrival_s=1.0), new("small", 4, arrival_s=2.0))
    plan = planner.plan(
        wire.Mode.FUSED, state(waiting=waiting, running=(decoding("d", 7),), free=20), Unknown(), 0.0
    )
    assert plan.admit == ()


@st.composite
def states(draw: st.DrawFn) -> State:
    running = tuple(
        Running(
            f"r{i}",
            draw(st.integers(0, 60)),
            draw(st.sampled_from([1, 1, 5, 40])),
            float(i),
            0.08,
            draw(st.floats(-1.0, 1.0)),
            draw(st.integers(0, 2)),
        )
        for i in range(draw(st.integers(0, 6)))
    )
    waiting = tuple(
        new(f"w{i}", tokens := draw(st.integers(1, 80)), cached=draw(st.integers(0, tokens - 1)) // 4 * 4)
        for i in range(draw(st.integers(0, 4)))
    )
    return state(
        waiting=waiting,
        running=running,
        free=draw(st.integers(0, 30)),
        evictable=draw(st.integers(0, 30)),
        chunk_tokens=draw(st.sampled_from([None, 1, 8, 64])),
        max_step_tokens=draw(st.sampled_from([16, 512])),
        lanes=lanes(),
    )


@given(picture=states(), mode=st.sampled_from(list(wire.Mode)))
def test_every_plan_can_be_carried_out(picture: State, mode: wire.Mode) -> None:
    plan = planner.plan(mode, picture, Speeds(0.02, 0.0005), 0.0)
    running = {r.request_id: r for r in picture.running}
    waiting = {w.request_id: w for w in picture.waiting}
    memory = picture.memory
    chunks = plan.prefill + plan.begin
    computed = [*plan.decode, *(chunk.request_id for chunk in chunks)]
    assert len(set(computed)) == len(computed)
    assert not set(computed) & set(plan.preempt)
    assert set(plan.admit) <= set(waiting)
    assert len(running) - len(plan.preempt) + len(plan.admit) <= max(picture.limits.max_running, len(running))
    for chunk in chunks:
        request = running.get(chunk.request_id) or waiting[chunk.request_id]
        left = request.remaining_tokens if isinstance(request, Running) else request.tokens
        assert 0 < chunk.tokens <= left
    freed = sum(memory.pages(running[name].computed_tokens) for name in plan.preempt)
    needed = sum(memory.growth(running[name].computed_tokens, 1) for name in plan.decode) + sum(
        memory.growth(running[c.request_id].computed_tokens, c.tokens)
        if c.request_id in running
        else memory.pages(waiting[c.request_id].cached_tokens + c.tokens)
        for c in chunks
    )
    if (
        len(running) - len(plan.preempt) + len(plan.admit) > 1
    ):  # one alone always fits: its length was checked when it came
        assert needed <= memory.pages_free + memory.pages_evictable + freed


@given(picture=states(), mode=st.sampled_from(list(wire.Mode)))
def test_somebody_always_moves(picture: State, mode: wire.Mode) -> None:
    plan = planner.plan(mode, picture, Unknown(), 0.0)
    if picture.running or picture.waiting:
        room = picture.memory.pages_free + picture.memory.pages_evictable
        assert not plan.empty or plan.preempt or (len(picture.running) == 1 and room == 0)


# multiplexing -----------------------------------------------------------------------------------------------


def test_decode_gets_the_fewest_sms_that_keep_its_target() -> None:
    latency = Speeds(0.200, 0.001, saturated=8)
    picture = state(waiting=(new("p", 300),), running=(decoding("d", 9),), lanes=lanes())
    plan = planner.plan(wire.Mode.MUX, picture, latency, 0.0)
    assert plan.split == wire.Split(3, 5)  # 200 / 3 ms are within 80 ms, 200 / 2 are not
    assert plan.decode == ("d",)
    assert [chunk.request_id for chunk in plan.begin] == ["p"]
    assert not plan.prefill


def test_a_target_that_no_split_keeps_gets_the_most() -> None:
    picture = state(waiting=(new("p", 300),), running=(decoding("d", 9),), lanes=lanes())
    plan = planner.plan(wire.Mode.MUX, picture, Speeds(9.0, 0.001, saturated=8), 0.0)
    assert plan.split == SPLITS[-1]


def test_a_smaller_decode_part_is_taken_with_room_to_spare_only() -> None:
    for decode_s, expected in ((0.140, 3), (0.125, 2)):  # on 2 SMs 70 ms and 62.5 ms of 80
        picture = state(
            waiting=(new("p", 300),), running=(decoding("d", 9),), lanes=lanes(split=wire.Split(3, 5))
        )
        plan = planner.plan(wire.Mode.MUX, picture, Speeds(decode_s, 0.001, saturated=8), 0.0)
        assert plan.split is not None
        assert plan.split.decode_sms == expected


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ((), wire.Split(5, 3)),  # the step takes 40 ms, with three SMs 67; the prefill 43 and 26
        ((new("q", 400),), wire.Split(3, 5)),  # all prefill there is takes 106 ms on five
    ],
)
def test_a_step_that_would_outlast_all_prefill_gets_more_sms(
    others: tuple[Waiting, ...], expected: wire.Split
) -> None:
    picture = state(waiting=(new("p", 130), *others), running=(decoding("d", 9),), lanes=lanes())
    plan = planner.plan(wire.Mode.MUX, picture, Speeds(0.200, 0.001, saturated=8), 0.0)
    assert (plan.split, plan.base) == (expected, wire.Split(3, 5))


@given(decode_s=st.floats(0.01, 2.0), tokens=st.integers(1, 5000), base=st.integers(0, len(SPLITS) - 1))
def test_balance_never_takes_from_decode_nor_makes_the_later_phase_end_later(
    decode_s: float, tokens: int, base: int
) -> None:
    latency, work = Speeds(decode_s, 0.001, saturated=8), Load.prefill([(tokens, 0)])
    rows = Load.decode(1, 10)

    def both_s(split: wire.Split) -> float:
        times = latency.pass_s(rows, split.decode_sms), latency.pass_s(work, split.prefill_sms)
        return max(time_s or 0.0 for time_s in times)

    found = splits.balanced(state(lanes=lanes()), SPLITS[base], rows, work, latency)
    assert found.decode_sms >= SPLITS[base].decode_sms
    assert both_s(found) <= both_s(SPLITS[base])
    assert splits.balanced(state(lanes=lanes()), SPLITS[base], rows, work, Unknown()) == SPLITS[base]


def test_layers_are_launched_as_far_as_the_decode_step_lasts() -> None:
    # 10 layers of 6 ms each on 7 SMs, beside a step of 20 ms
    latency = Speeds(0.020, 0.001)
    picture = state(waiting=(new("p", 420),), running=(decoding("d", 9),), free=1000, lanes=lanes())
    plan = planner.plan(wire.Mode.MUX, picture, latency, 0.0)
    assert plan.split == wire.Split(1, 7)
    assert plan.layers == 4


def test_layers_that_are_queued_beyond_the_step_are_enough() -> None:
    latency = Speeds(0.020, 0.001)
    load = Load.prefill([(350, 0)])  # 5 ms per layer on 7 SMs
    flight = Flight(Load.decode(4, 40), SPLITS[0], ends_s=0.010, tbt_target_s=0.08)
    for launched, expected in ((2, 0), (1, 1), (0, 2)):
        cut = Cut(load, 0.4, 1.6, SPLITS[0], LAYERS, launched=launched, done=0)
        plan = planner.plan(
            wire.Mode.MUX, state(lanes=lanes(flight=flight, cut=cut), in_flight=5), latency, 0.0
        )
        assert plan.layers == expected


def test_a_phase_that_is_alone_has_the_whole_device() -> None:
    latency = Speeds(0.020, 0.001)
    alone = planner.plan(wire.Mode.MUX, state(running=(decoding("d", 9),), lanes=lanes()), latency, 0.0)
    assert alone.decode == ("d",)
    assert alone.split is None
    alone = planner.plan(wire.Mode.MUX, state(waiting=(new("p", 300),), lanes=lanes()), latency, 0.0)
    assert alone.begin
    assert alone.layers
    assert alone.split is None


class Constant(Speeds):
    """A prefill pass also costs 100 tokens' time whatever its length."""

    def pass_s(self, load: Load, sms: int) -> float | None:
        seconds = super().pass_s(load, sms)
        assert seconds is not None
        return seconds + (0.1 / sms if load.new_tokens else 0.0)


@pytest.mark.parametrize(
    ("latency", "expected"),
    [
        (Speeds(0.02, 0.001), ["a"]),
        (Constant(0.02, 0.001), ["a", "b", "c"]),
        (Unknown(), ["a", "b", "c", "d"]),
    ],
    ids=["nothing to gain", "the constant is shared by 900 tokens", "nothing known"],
)
def test_prompts_are_prefilled_together_as_long_as_that_is_more_efficient(
    latency: Predictions, expected: list[str]
) -> None:
    waiting = tuple(new(name, 300) for name in "abcd")
    picture = state(waiting=waiting, free=1000, max_step_tokens=2048, lanes=lanes())
    plan = planner.plan(wire.Mode.MUX, picture, latency, 0.0)
    assert [chunk.request_id for chunk in plan.begin] == expected


def test_decode_goes_on_while_a_prefill_is_cut() -> None:
    cut = Cut(Load.prefill([(300, 0)]), 0.4, 1.6, SPLITS[2], LAYERS, launched=3, done=1)
    picture = state(running=(decoding("d", 9),), lanes=lanes(cut=cut, split=SPLITS[2]), in_flight=1)
    plan = planner.plan(wire.Mode.MUX, picture, Speeds(0.200, 0.001, saturated=8), 0.0)
    assert plan.decode == ("d",)
    assert plan.split == wire.Split(3, 5)
    assert not plan.begin


def test_nothing_is_launched_beside_a_pass_on_the_whole_device() -> None:
    busy = Flight(Load.decode(1, 9), None, ends_s=0.01, tbt_target_s=0.08)
    picture = state(waiting=(new("p", 300),), lanes=lanes(flight=busy), in_flight=1)
    assert planner.plan(wire.Mode.MUX, picture, Speeds(0.02, 0.001), 0.0).empty


@pytest.mark.parametrize(("target_ms", "expected"), [(30.0, wire.Mode.MUX), (400.0, wire.Mode.FUSED)])
def test_auto_shares_in_space_for_tight_targets_and_in_time_for_loose_ones(
    target_ms: float, expected: wire.Mode
) -> None:
    # a decode step takes 20 ms on any part, so it leaves most of the device idle
    row = Running("d", 9, 1, 0.0, target_ms / 1e3, target_ms / 1e3)
    picture = state(waiting=(new("p", 2000),), running=(row,), max_step_tokens=2048, lanes=lanes(), free=1000)
    assert planner.plan(wire.Mode.AUTO, picture, Speeds(0.020, 0.002), 0.0).mode is expected


def test_auto_keeps_to_its_mode_for_small_gains() -> None:
    row = Running("d", 9, 1, 0.0, 0.2, 0.2)
    for mode in (wire.Mode.MUX, wire.Mode.FUSED):
        picture = state(
            waiting=(new("p", 2000),), running=(row,), max_step_tokens=2048, lanes=lanes(mode=mode), free=1000
        )
        assert planner.plan(wire.Mode.AUTO, picture, Speeds(0.020, 0.002), 0.0).mode is mode


@pytest.mark.parametrize(
    ("target_ms", "ends_s", "leaves"),
    [(30.0, 0.001, False), (400.0, 0.001, True), (400.0, 0.100, False)],  # 100 ms are more than it gains
)
def test_auto_leaves_mux_between_two_prefills(target_ms: float, ends_s: float, leaves: bool) -> None:
    """Decode steps go on while prefills follow each other: the lanes are never both free."""
    step = Flight(Load.decode(1, 10), SPLITS[0], ends_s, tbt_target_s=target_ms / 1e3)
    joining = Running("j", 9, 1, 0.0, 0.4, 0.4)  # the row of the prefill that ended
    picture = state(
        waiting=(new("p", 2000),),
        running=(joining,),
        max_step_tokens=2048,
        lanes=lanes(flight=step, split=SPLITS[0], mode=wire.Mode.MUX),
        in_flight=1,
        free=1000,
    )
    plan = planner.plan(wire.Mode.AUTO, picture, Speeds(0.020, 0.002), 0.0)
    assert plan.empty is leaves
    assert len(plan.begin) == (not leaves)


class LongContexts(Speeds):
    """A token behind 80,000 others takes twice as long as one behind none."""

    def pass_s(self, load: Load, sms: int) -> float | None:
        behind = load.new_times_reused + load.new_squared // 2
        return super().pass_s(replace(load, new_tokens=load.new_tokens + behind // 80_000), sms)


@pytest.mark.parametrize("rest_tokens", [0, 40])
def test_auto_judges_each_prompt_by_its_own_context(rest_tokens: int) -> None:
    """The end of a long prompt is slow; it says nothing of the short prompt that shares a pass with it."""
    row = Running("d", 9, 1, 0.0, 0.4, 0.4)
    rest = (Running("r", 80_000, rest_tokens, 0.0, 0.4, 0.0),) if rest_tokens else ()
    picture = state(
        waiting=(new("p", 2000),), running=(row, *rest), max_step_tokens=2048, lanes=lanes(), free=1000
    )
    plan = planner.plan(wire.Mode.AUTO, picture, LongContexts(0.020, 0.002), 0.0)
    assert plan.mode is wire.Mode.FUSED
    assert len(plan.prefill) == 1 + len(rest)


def test_auto_is_fused_where_the_device_has_one_lane() -> None:
    picture = state(waiting=(new("p", 300),), running=(decoding("d", 9),))
    assert planner.plan(wire.Mode.AUTO, picture, Speeds(0.02, 0.0005), 0.0).mode is wire.Mode.FUSED


@pytest.mark.parametrize(
    ("tokens", "deadline_s", "cut_deadline_s", "cut_firm_s", "expected"),
    [
        (100, 0.10, 1.0, 9.0, ["p"]),  # short and late behind it: goes between two layers
        (100, 0.60, 1.0, 9.0, []),  # makes its target behind it
        (200, 0.01, 1.0, 9.0, []),  # does not make its target before it either
        (100, 0.01, 1.0, 9.0, ["p"]),  # but takes next to nothing of its time,
        (100, 0.01, 0.31, 9.0, []),  # with which it would miss its target
        (1300, 0.40, 1.0, 9.0, []),  # longer than what is left
        (100, 0.10, 0.31, 9.0, []),  # the one that is cut would miss its target
        (100, 0.10, 0.20, 9.0, ["p"]),  # the one that is cut misses its target anyway
        (100, 0.10, 0.20, 0.0, []),  # and has waited for so long that nobody goes before it
    ],
)
def test_a_prompt_that_would_be_late_goes_between_the_layers_of_a_long_one(
    tokens: int, deadline_s: float, cut_deadline_s: float, cut_firm_s: float, expected: list[str]
) -> None:
    # 400 ms on 8 SMs, of which 300 are left; 100 tokens take 25
    cut = Cut(Load.prefill([(1600, 0)]), cut_deadline_s, cut_firm_s, None, 8, launched=2, done=2)
    picture = state(
        waiting=(new("p", tokens, deadline_s=deadline_s),), free=1000, lanes=lanes(cut=cut), in_flight=1
    )
    plan = planner.plan(wire.Mode.MUX, picture, Speeds(0.02, 0.002), 0.0)
    assert [chunk.request_id for chunk in plan.begin] == expected
    assert plan.layers


# order ------------------------------------------------------------------------------------------------------


class Placed(NamedTuple):
    arrival_s: float
    deadline_s: float
    uncached_tokens: int
    priority: int = 0


def placed(arrival_s: float, tokens: int, *, target_s: float = 0.4, priority: int = 0) -> Placed:
    return Placed(arrival_s, arrival_s + target_s, tokens, priority)


def test_who_has_to_start_soonest_is_first() -> None:
    long, short = placed(0.05, 300), placed(0.0, 10)
    served, until_s = order.line([short, long], 1000.0, 0.1)
    assert served == [long, short]
    assert until_s == pytest.approx(0.15)


def test_who_is_late_anyway_steps_back() -> None:
    late, timely = placed(0.0, 200), placed(0.2, 200)
    assert order.line([late, timely], 1000.0, 0.3)[0] == [timely, late]


lines = st.lists(
    st.builds(
        placed,
        st.floats(0.0, 5.0),
        st.integers(1, 400),
        target_s=st.floats(0.05, 1.0),
        priority=st.integers(0, 1),
    ),
    max_size=8,
)


@given(waiting=lines, now_s=st.floats(5.0, 15.0))
def test_nobody_goes_before_an_aged_request_that_came_earlier(waiting: list[Placed], now_s: float) -> None:
    served, _ = order.line(waiting, 1000.0, now_s)
    for index, aged in enumerate(served):
        if now_s >= order.aged_s(aged.arrival_s, aged.deadline_s):
            for other in served[:index]:
                assert other.priority > aged.priority or other.arrival_s <= aged.arrival_s


@given(waiting=lines, now_s=st.floats(0.0, 10.0), share=st.floats(0.0, 0.99))
def test_the_order_holds_for_as_long_as_it_says(waiting: list[Placed], now_s: float, share: float) -> None:
    served, until_s = order.line(waiting, 1000.0, now_s)
    later_s = now_s + share * (min(until_s, 100.0) - now_s)
    if later_s < until_s:
        assert order.line(waiting, 1000.0, later_s)[0] == served
